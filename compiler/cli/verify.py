"""`hf2khc verify DIR`: a package against KerasHub's contract."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from hf2khc.cli.options import Parser, parse_backends

COMMAND = "verify"
DESCRIPTION = """\
Checks a converted package against what KerasHub demands of a model: saving, presets, LoRA, quantization, mixed
precision, variable lengths, compiled inference and training, dropout; on every backend."""
_WIDE = 120


def run(arguments: Sequence[str]) -> int:
    """Checks the package that the arguments name; returns 0 if nothing fails, else 1.

    Raises:
        ConversionError: `usage`, `unknown-backend`, `backend-not-installed`, or `package` when there is none in DIR.
    """
    found = _parser().parse_args(arguments)
    backends = parse_backends(found.backend)
    # The data of a check imports no backend; the check itself runs in processes of its own.
    from hf2khc.check.contract import verify

    contract = verify(found.directory.absolute(), backends)
    if found.json:
        print(json.dumps(contract.to_json(), indent=2, ensure_ascii=False))
    else:
        _print(contract, quiet=found.quiet)
    return 0 if contract.holds else 1


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog=f"hf2khc {COMMAND}", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("directory", type=Path, metavar="DIR", help="what `hf2khc MODEL -o DIR` wrote")
    names = "Keras backends, separated by commas: jax, tensorflow, torch (default: those installed)"
    parser.add_argument("--backend", metavar="NAMES", help=names)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="print only what fails")
    parser.add_argument("--traceback", action="store_true", help="show the Python traceback of an error")
    return parser


def _print(contract, quiet: bool) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _WIDE)
    shown = [finding for finding in contract.findings if not quiet or finding.verdict == "fails"]
    if shown:
        table = Table(box=box.SIMPLE_HEAD)
        for name in ("backend", "check", "verdict", "detail"):
            table.add_column(name, no_wrap=name != "detail", overflow="fold")
        for finding in shown:
            table.add_row(finding.backend, finding.check, finding.verdict, "\n".join((finding.detail, *finding.faults)))
        console.print(table)
    if quiet:
        return
    for backend, subject in contract.subject.items():
        console.print(f"Checked on {backend}: {subject}.", markup=False)
    console.print("The contract holds." if contract.holds else "The contract does not hold.")
