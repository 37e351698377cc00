"""Runs `hf2khc compare` over a fixed list into docs/static_vs_dynamic.md; `make compare` runs it.

    python -m benchmarks.compare [--only gpt2,bert] [--list]

Each result is written as soon as it is there; the document, its chart and the summary in the README are made from the
result files.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.compare_document import quote, write_document
from benchmarks.compare_models import CASES, Case
from benchmarks.machine import busy, machine

RESULTS = Path(__file__).parent / "compare_results"
ROOT = Path(__file__).resolve().parents[1]
DOCUMENT, README = ROOT / "docs" / "static_vs_dynamic.md", ROOT / "README.md"
LIMIT = 3600


def measure(case: Case) -> dict[str, Any]:
    """Both ways on one model, in processes of their own; a failure of the whole command is a result as well."""
    with tempfile.TemporaryDirectory(prefix="hf2khc-bench-") as folder:
        scratch = Path(folder)
        words = ["compare", *command.of_benchmark(case, scratch, "--json")]
        done = subprocess.run(
            [*command.executable(), *words], capture_output=True, text=True, check=False, timeout=LIMIT
        )  # fmt: skip
        result = {"name": case.name, "title": case.title, "command": command.quoted(words, scratch)}
        result |= {"machine": machine(), "busy": busy()}
        answer = json.loads(done.stdout) if done.stdout else {"errors": [{"message": done.stderr[-800:]}]}
        if isinstance(answer, Mapping):
            return {**result, "failure": answer["errors"][0]["message"].replace(f"{scratch}/", "")}
        text = json.dumps(answer[0]).replace(f"{scratch}/", "")
        return {**result, **{key: value for key, value in json.loads(text).items() if key != "title"}}


def run(names: Iterable[str]) -> None:
    """Measure and write."""
    RESULTS.mkdir(exist_ok=True)
    every = {case.name: case for case in CASES}
    for name in names:
        print(f"{name} ...", flush=True)
        result = measure(every[name])
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        write_document(DOCUMENT, load())
        quote(README, load())
        print(f"{name}: {result.get('failure', result.get('proved'))}", flush=True)


def load() -> list[dict[str, Any]]:
    """The results that are there, in the order of the list."""
    files = [RESULTS / f"{case.name}.json" for case in CASES]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--only", default="", metavar="NAMES", help="names to compare, separated by commas")
    parser.add_argument("--list", action="store_true", help="print the names and do nothing else")
    found = parser.parse_args()
    known = [case.name for case in CASES]
    names = command.chosen(found.only, known, "compare")
    if found.list:
        print("\n".join(known))
    else:
        run(names)
    return 0


if __name__ == "__main__":
    sys.exit(main())
