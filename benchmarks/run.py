"""Measures the models and the aims, one at a time, each in its own process; `make bench` runs it.

    python -m benchmarks.run [--only gpt2,bert,compile_memory] [--repeats 3]

Each result is written as soon as it is there; the table in README.md is made from the result files.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.aims import all_aims
from benchmarks.conversion import measure
from benchmarks.models import MODELS
from benchmarks.table import update

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent / "README.md"
REPEATS = 3


def jobs(repeats: int = REPEATS) -> dict[str, Callable[[], dict[str, Any]]]:
    """What can be measured, by name, in the order it is done."""
    models = {benchmark.name: lambda benchmark=benchmark: measure(benchmark) for benchmark in MODELS}
    return {**models, **all_aims(RESULTS, repeats)}


def chosen(only: str) -> list[str]:
    """The names to measure: those given, separated by commas, or all.

    Raises:
        SystemExit: a name that is none.
    """
    return command.chosen(only, list(jobs()), "measure")


def run(names: Iterable[str], repeats: int = REPEATS) -> bool:
    """Measure and write; whether every model was proved and every aim reached."""
    RESULTS.mkdir(exist_ok=True)
    every, good = jobs(repeats), True
    for name in names:
        print(f"{name} ...", flush=True)
        result = every[name]()
        good = good and bool(result.get("ok", result.get("holds")))
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        update(README, RESULTS)
        print(f"{name}: {_outcome(result)}", flush=True)
    return good


def _outcome(result: dict[str, Any]) -> str:
    if "failure" in result:
        return "failed: " + "; ".join(f"[{error['code']}] {error['message']}" for error in result["failure"])
    return "holds" if result.get("ok", result.get("holds")) else "does not hold"


def main() -> int:
    """The command line; 1 where something does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--only", default="", metavar="NAMES", help="names to measure, separated by commas")
    parser.add_argument("--repeats", type=int, default=REPEATS, metavar="N", help="of each compile time (default: 3)")
    found = parser.parse_args()
    names = chosen(found.only)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return 0 if run(names, found.repeats) else 1


if __name__ == "__main__":
    sys.exit(main())
