"""One conversion with its proof on every backend, in a process of its own: the command line as a user runs it."""

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.difference import largest_difference
from benchmarks.machine import busy, machine
from benchmarks.models import Benchmark

LIMIT = 3600
_KEPT = ("parameters", "config_generalises", "reasons", "notes", "idioms", "residue", "proved", "stages", "runs",
         "weights", "versions")  # fmt: skip
_STAGE = re.compile(r"^(\w+): ([\d.]+) s$", re.MULTILINE)


def measure(benchmark: Benchmark) -> dict[str, Any]:
    """Convert, prove, and return what the result file holds; an error is a result as well."""
    with tempfile.TemporaryDirectory(prefix="hf2khc-bench-") as folder:
        scratch = Path(folder)
        words = command.of_benchmark(benchmark, scratch, "-o", str(scratch / "package"), "--json")
        result: dict[str, Any] = {
            "name": benchmark.name, "title": benchmark.title, "command": command.quoted(words, scratch),
            "machine": machine(), "busy": busy(),
        }  # fmt: skip
        began = time.perf_counter()
        answer, progress = _run(words)
        result["wall_seconds"] = round(time.perf_counter() - began, 1)
        if "errors" in answer and "stages" not in answer:
            seconds = {name: float(number) for name, number in _STAGE.findall(progress)}
            return {**result, "ok": False, "failure": _without(answer["errors"], scratch), "reached": seconds}
        result |= {"ok": bool(answer["proved"]), "class": answer["source"]["class"], "parity": worst(answer["errors"])}
        result |= {name: answer[name] for name in _KEPT}
        if benchmark.prepare is not None:
            result["largest_difference"] = largest_difference(scratch / "package", Path(words[0]), answer)
        return _without(result, scratch)


def worst(errors: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each backend and output the largest error over all cases, with transformers' own and the bound beside it."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in errors:
        key = (row["backend"], row["output"])
        before = found.get(key)
        holds = row["holds"] and (before is None or before["holds"])
        if before is None or _size(row) > _size(before):
            before = {name: row[name] for name in ("backend", "output", "case", "ours", "theirs", "bound", "magnitude")}
        found[key] = {**before, "holds": holds}
    return list(found.values())


def _size(row: Mapping[str, Any]) -> float:
    return float("inf") if row["ours"] is None else row["ours"]


def _run(words: list[str]) -> tuple[dict[str, Any], str]:
    done = subprocess.run(
        [*command.executable(), *words], capture_output=True, text=True, check=False, timeout=LIMIT
    )  # fmt: skip
    try:
        return json.loads(done.stdout), done.stderr
    except ValueError:
        error = {"code": "crash", "message": f"exit code {done.returncode}", "excerpt": done.stderr[-2000:]}
        return {"errors": [error]}, done.stderr


def _without(value: Any, scratch: Path) -> Any:
    """The same without the paths of this machine."""
    root = Path(__file__).resolve().parents[1]
    text = json.dumps(value).replace(f"{scratch}/", "").replace(f"{root}/", "")
    return json.loads(text)
