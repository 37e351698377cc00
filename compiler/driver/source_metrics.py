"""How much source a package is, and how much KerasHub's own authors wrote for the same type of model."""

import ast
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from hf2khc.ir.graph import Program

_TEST = "_test.py"
_SMALL = 4  # axes, ranks, halves and steps are below
_SHARED = "keras_hub.src.layers"


def source_metrics(sources: Mapping[str, str], program: Program, model_type: str) -> dict[str, int]:
    """Counts for the report.

    Args:
        sources: text of the package's source files.
        program: that was printed.
        model_type: of the transformers config; KerasHub's folders of models mostly go by the same names.

    Returns:
        `lines` without tests, `test_lines`; `unrolled_layers`, calls of layers of a list that stand outside a loop;
        `literal_dimensions`, integers of 4 and more in the code; and where KerasHub has a model of this name,
        `kerashub_lines` of its backbone and the modules beside it that it needs, `kerashub_shared_lines` of the modules
        of `keras_hub.layers` that these need.
    """
    code = {path: text for path, text in sources.items() if not path.endswith(_TEST)}
    found = {
        "lines": sum(_lines(text) for text in code.values()),
        "test_lines": sum(_lines(text) for path, text in sources.items() if path.endswith(_TEST)),
        "unrolled_layers": _unrolled(program),
        "literal_dimensions": sum(len(list(_literals(text))) for text in code.values()),
    }
    return found | hand_written_lines(model_type)


def hand_written_lines(model_type: str) -> dict[str, int]:
    """Lines of KerasHub's own backbone of a model type; empty where it has none. Its code is read and not imported."""
    spec = find_spec("keras_hub")
    if spec is None or not spec.submodule_search_locations:
        return {}
    root = Path(spec.submodule_search_locations[0])
    backbone = root / "src" / "models" / model_type / f"{model_type}_backbone.py"
    if not re.fullmatch(r"\w+", model_type) or not backbone.is_file():
        return {}
    own, shared = f"keras_hub.src.models.{model_type}", _SHARED
    needed = _needed(backbone, root, (own, shared))
    inside = {path for path in needed if path.parent == backbone.parent}
    return {
        "kerashub_lines": sum(_lines(path.read_text(encoding="utf-8")) for path in inside),
        "kerashub_shared_lines": sum(_lines(path.read_text(encoding="utf-8")) for path in needed - inside),
    }


def _lines(text: str) -> int:
    return len(text.splitlines())


def _needed(first: Path, root: Path, packages: tuple[str, ...]) -> set[Path]:
    """A module and all that it imports from the packages, directly or not."""
    found: set[Path] = set()
    left = [first]
    while left:
        path = left.pop()
        if path in found:
            continue
        found.add(path)
        for name in _imported(path.read_text(encoding="utf-8")):
            module = root.joinpath(*name.split(".")[1:]).with_suffix(".py")
            if name.startswith(packages) and module.is_file():
                left.append(module)
    return found


def _imported(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _unrolled(program: Program) -> int:
    return sum(
        re.search(r"(^|\.)\d+(\.|$)", str(node.attrs["path"])) is not None
        for graph in program.graphs.values()
        for node in graph.of("call")
    )


def _literals(text: str) -> Iterator[int]:
    """Integers in code: not in docstrings, and not the defaults of arguments, which are the config itself."""
    tree = ast.parse(text)
    defaults = {
        id(part)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for default in (*function.args.defaults, *(d for d in function.args.kw_defaults if d))
        for part in ast.walk(default)
    }
    for node in ast.walk(tree):
        number = node.value if isinstance(node, ast.Constant) else None
        if type(number) is int and number >= _SMALL and id(node) not in defaults:
            yield number
