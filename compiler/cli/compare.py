"""`hf2khc compare MODEL...`: the static way and the compiler on the same models, side by side."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from hf2khc.cli.options import Parser, parse_backends, parse_set
from hf2khc.diagnostics import fail

COMMAND = "compare"
DESCRIPTION = """\
Converts each model both ways, with the static way and with the compiler, each in a process of its own and on the same
weights, and shows what each of them got right. Every number is measured in this run."""
MARKDOWN, JSON = "compare.md", "compare.json"
_WIDE = 160


def run(arguments: Sequence[str]) -> int:
    """Compares the models that the arguments name, prints and writes the tables; returns 0.

    Raises:
        ConversionError: `usage`, `bad-set`, `unknown-backend`, or what keeps a model from being read.
    """
    found = _parser().parse_args(arguments)
    if found.set and not found.random_init:
        raise fail("usage", "--set goes with --random-init only", hint="add --random-init")
    backends = parse_backends(found.backend)
    from hf2khc.comparison.compare import compare, markdown

    overrides = dict(parse_set(item) for item in found.set)
    compared = []
    for model in found.models:
        compared.append(
            compare(
                model, random_init=found.random_init, overrides=overrides, seed=found.seed, task=found.task,
                trust_remote_code=found.trust_remote_code, backends=backends,
            )
        )  # fmt: skip
    data = json.dumps([each.to_json() for each in compared], indent=2, ensure_ascii=False)
    if found.output is not None:
        found.output.mkdir(parents=True, exist_ok=True)
        (found.output / MARKDOWN).write_text(markdown(compared), encoding="utf-8")
        (found.output / JSON).write_text(data + "\n", encoding="utf-8")
    if found.json:
        print(data)
    else:
        _print(compared)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog=f"hf2khc {COMMAND}", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="as for `hf2khc MODEL`")
    parser.add_argument("--random-init", action="store_true", help="take only the configs; the weights are random")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a config field")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the random weights (default: 0)")
    parser.add_argument("--task", metavar="TASK", help="choose the class by task, such as causal-lm")
    parser.add_argument("--trust-remote-code", action="store_true", help="run Python code that comes with a model")
    names = "Keras backends of the proofs, separated by commas: jax, tensorflow, torch (default: torch)"
    parser.add_argument("--backend", metavar="NAMES", default="torch", help=names)
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help=f"write {MARKDOWN} and {JSON} into DIR")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON on stdout")
    parser.add_argument("--traceback", action="store_true", help="show the Python traceback of an error")
    return parser


def _print(compared: Sequence) -> None:
    from hf2khc.comparison.compare import NOTE, WAYS, rows

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _WIDE)
    for each in compared:
        table = Table("", *WAYS, box=box.SIMPLE_HEAD, title=f"{each.title}: {each.model_class}", title_justify="left")
        for row in rows(each):
            table.add_row(*row, end_section=False)
        console.print(table)
    console.print(NOTE, markup=False)
