"""Pieces of Python source that several files share: docstrings, methods, imports, formatting."""

import subprocess
import textwrap
from collections.abc import Iterable, Sequence

from ruff import find_ruff_bin

from hf2khc.diagnostics import fail
from hf2khc.write.arguments import has_default
from hf2khc.write.expressions import literal
from hf2khc.write.plan import Field, as_ir

WIDTH = 80


def default_text(field: Field) -> str:
    """The default of an argument as Python text."""
    return literal(as_ir(field.value), str)


def signature(method: str, arguments: Sequence[str]) -> str:
    return f"def {method}({', '.join(['self', *arguments])}):"


def init_arguments(fields: Iterable[Field]) -> list[str]:
    """Constructor arguments with their defaults."""
    return [f"{f.name}={default_text(f)}" if has_default(f) else f.name for f in fields]


def get_config(fields: Sequence[Field], parent: str = "super()") -> list[str]:
    """The `get_config` method, its lines not indented; `parent` has what is not in the fields."""
    items = [fitted(f'"{f.name}": ', f"self.{f.name}", 16) + "," for f in fields]
    update = ["config.update({", *(f"    {item}" for item in items), "})"] if items else []
    own = "self" if parent != "super()" else ""
    body = [f"config = {parent}.get_config({own})", *update, "return config"]
    return ["def get_config(self):", *indent(body)]


def fitted(start: str, value: str, column: int) -> str:
    """`start` and `value` on one line, or the value in parentheses where the line would be too long."""
    text = f"{start}{value}"
    simple = value.replace(".", "").replace("_", "").isalnum()
    return f"{start}({value})" if simple and column + len(text) + 1 > WIDTH else text


def indent(lines: Iterable[str], levels: int = 1) -> list[str]:
    return ["    " * levels + line if line else "" for line in lines]


def argument_docs(fields: Iterable[Field]) -> list[str]:
    """The entries of `Args:`."""
    lines: list[str] = []
    for field in fields:
        doc = field.doc or "Value of the configuration."
        if has_default(field) and "Defaults to" not in doc:
            doc += f" Defaults to `{default_text(field)}`."
        lines += entry(field.name, doc)
    return lines


def entry(name: str, doc: str) -> list[str]:
    """One entry of `Args:`, wrapped."""
    return textwrap.wrap(
        f"{name}: {doc}", WIDTH - 8, initial_indent="    ", subsequent_indent="        ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def paragraph(text: str) -> list[str]:
    """A paragraph of a class docstring, wrapped."""
    return textwrap.wrap(text, WIDTH - 4, break_long_words=False, break_on_hyphens=False)


def docstring(lines: Sequence[str]) -> list[str]:
    """A docstring of these lines, its summary first."""
    escaped = [line.replace("\\", "\\\\").replace('"""', "'''") for line in lines]
    if len(escaped) == 1:
        return [f'"""{escaped[0]}"""']
    return [f'"""{escaped[0]}', *escaped[1:], '"""']


def formatted(text: str, package: str, width: int = WIDTH) -> str:
    """`text` formatted and its imports sorted by ruff, with the settings of KerasHub.

    Raises:
        ConversionError: `printed-code`, where ruff finds fault with the code.
    """
    settings = ["--isolated", "--config", f"line-length={width}"]
    # A line that only holds a long name of the model's own (E501) is no fault.
    lint = ["--select", "E,F,I", "--ignore", "E741,E501", "--config", "lint.isort.force-single-line=true"]
    lint += ["--config", f'lint.isort.known-first-party=["{package}"]']
    fixed = _ruff(["check", *settings, *lint, "--fix-only", "--quiet", "-"], text)
    shaped = _ruff(["format", *settings, "--quiet", "-"], fixed)
    _ruff(["check", *settings, *lint, "--output-format", "concise", "--quiet", "-"], shaped)
    return shaped


def _ruff(arguments: Sequence[str], text: str) -> str:
    done = subprocess.run([find_ruff_bin(), *arguments], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        message = "ruff finds fault with the code that was printed"
        raise fail(
            "printed-code", message, excerpt=f"{done.stdout if 'check' in arguments else ''}{done.stderr}\n{text}"
        )
    return done.stdout
