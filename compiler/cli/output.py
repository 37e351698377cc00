"""What the command line prints on stdout."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from hf2khc.check.proof import OutputError
from hf2khc.driver.convert import Conversion
from hf2khc.driver.report import ERROR_COLUMNS, NUMBER_COLUMNS, READABLE_FILE, Report, counted, error_cells, worst

if TYPE_CHECKING:
    from hf2khc.driver.inspection import NearMiss

ERRORS_NOTE = """\
Errors are relative to the largest magnitude of transformers' output in float64; `transformers` is its own error in
float32. Of each output the case that comes nearest to its bound."""
WIDE = 120  # columns where the output goes to no terminal


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns; the last one is not padded."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=False)] + [row[-1]] for row in rows]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def sources(files: Mapping[str, str]) -> str:
    """The source files of a package one after another, each under its path."""
    return "\n".join(f"# === {path} ===\n{text}" for path, text in files.items())


def explanation(compiled: Any) -> str:
    """What each module became, what was recognised per layer, the nearest misses of the rules, and the residue."""
    rows = [(row.path or "(the model)", row.became, ", ".join(row.rules)) for row in compiled.modules]
    parts = {
        "Modules: what each became, and by which rules and passes": columns(rows),
        "Recognised, by layer": columns([(layer, counted(found)) for layer, found in compiled.idioms.items()]),
        "Nearest misses: what a rule found where it fitted in part": "\n".join(map(_miss, compiled.misses)),
        "Residue: operations outside every idiom": columns([(op, str(n)) for op, n in compiled.residue.items()]),
    }
    return "\n\n".join(f"{title}\n{body or '(none)'}" for title, body in parts.items()) + "\n"


def _miss(miss: "NearMiss") -> str:
    place = f" ({miss.place})" if miss.place else ""
    head = f"{miss.rule}: {miss.depth} operations fit in {miss.graph}{place}"
    return "\n    ".join(filter(None, (head, miss.value, miss.reason)))


def summary(conversion: Conversion, console: Console | None = None) -> None:
    """The error table and where the package is."""
    report(conversion.report, conversion.directory, console)


def report(found: Report, directory: Path | None, console: Console | None = None) -> None:
    """How a package came about where it was not compiled, the error table, the verdict, and where the package is."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, WIDE)
    if found.way:
        console.print(f"{found.way}\n", markup=False)
        counts = ", ".join(f"{name}: {count}" for name, count in found.weights.items())
        console.print(f"{counts}\n", markup=False)
    if found.errors:
        console.print(_error_table(found.errors))
        console.print(f"{ERRORS_NOTE}\n")
    verdict = {
        True: "The proof holds: both models compute the same function.",
        None: "Not proved: the check was skipped.",
        False: "The proof does not hold.",
    }[found.proved]
    unproven = "The package is unproven; --check would prove it or refuse it."
    console.print(unproven if found.way and found.proved is None else verdict)
    if directory is not None:
        console.print(f"Package: {directory}  (see {READABLE_FILE} in it)", soft_wrap=True, markup=False)


def _error_table(errors: Sequence[OutputError]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ERROR_COLUMNS:
        number = name in NUMBER_COLUMNS
        table.add_column(name, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in worst(errors):
        table.add_row(*error_cells(row))
    return table
