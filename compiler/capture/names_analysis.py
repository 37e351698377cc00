"""What the source of a model calls its values. Only names come from here; nothing depends on their being found."""

import ast
import inspect
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import transformers
from torch import nn


def assignment_names(model: nn.Module) -> Callable[[str, int], str | None]:
    """A lookup from a source line of the model to the variable that is assigned there.

    Args:
        model: its modules' classes, and their bases, say which files are read, besides transformers itself.

    Returns:
        `lookup(file, line)`: the name; None outside these files and where no single name is assigned.
    """
    files = {str(Path(file).resolve()) for file in _files(type(module) for module in model.modules())}
    library = str(Path(transformers.__file__).resolve().parent)

    def lookup(file: str, line: int) -> str | None:
        path = str(Path(file).resolve())
        return _names(path).get(line) if path in files or path.startswith(library) else None

    return lookup


def _files(classes: Iterable[type]) -> Iterable[str]:
    for cls in {base for model_class in set(classes) for base in model_class.__mro__}:
        if cls.__module__.split(".")[0] in ("torch", "builtins"):
            continue
        try:
            file = inspect.getsourcefile(cls)
        except (TypeError, OSError):
            continue
        if file:
            yield file


@cache
def _names(path: str) -> dict[int, str]:
    """The assigned name by line of one file; of nested statements the innermost counts."""
    try:
        tree = ast.parse(Path(path).read_text())
    except (OSError, SyntaxError, UnicodeDecodeError):
        return {}
    names: dict[int, str] = {}
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
            name = _target(statement)
            if name:
                names |= dict.fromkeys(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1), name)
    return names


def _target(statement: ast.Assign | ast.AnnAssign | ast.AugAssign) -> str | None:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    if len(targets) != 1:
        return None
    target = targets[0]
    if isinstance(target, ast.Tuple) and target.elts and _unused(target.elts[1:]):
        target = target.elts[0]
    return target.id if isinstance(target, ast.Name) and target.id != "_" else None


def _unused(targets: list[ast.expr]) -> bool:
    return all(isinstance(target, ast.Name) and target.id.startswith("_") for target in targets)


def tuple_names(file: str, line: int) -> tuple[str, ...] | None:
    """All names of a tuple assignment on a line: `query, key = ...`; None where there is none."""
    return _tuples(str(Path(file).resolve())).get(line)


@cache
def _tuples(path: str) -> dict[int, tuple[str, ...]]:
    try:
        tree = ast.parse(Path(path).read_text())
    except (OSError, SyntaxError, UnicodeDecodeError):
        return {}
    found: dict[int, tuple[str, ...]] = {}
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Tuple):
            names = [target.id if isinstance(target, ast.Name) else "" for target in statement.targets[0].elts]
            if all(names):
                lines = range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
                found |= dict.fromkeys(lines, tuple(names))
    return found
