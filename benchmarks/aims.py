"""The aims: compile time against torch.export, against depth, memory of a compile and of a transfer of weights."""

import json
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.compile_time import COMPILE, EXPORT, EXPORT_CUT, spent
from benchmarks.generation import generation
from benchmarks.machine import busy, machine
from benchmarks.models import LLAMA_1B, LLAMA_70B, LM, MODELS, Benchmark

GIB = 2**30
RESULT = dict[str, Any]


def compile_against_export(repeats: int) -> RESULT:
    """Compile without weights and validation, and torch.export alone, turn by turn on the same machine."""
    rows = {b.name: _against_export(b, repeats) for b in MODELS if b.model}
    return {"aim": "compile time at most 2 times torch.export of the whole model", "models": rows,
            "command": "python -m benchmarks.run --only compile_against_export", "machine": machine(), "busy": busy(),
            "holds": all(row["ratios"]["seconds"] <= 2 for row in rows.values())}  # fmt: skip


def _against_export(benchmark: Benchmark, repeats: int) -> RESULT:
    found: dict[str, list[dict[str, float]]] = {EXPORT: [], EXPORT_CUT: [], COMPILE: []}
    for _ in range(repeats):
        for kind, runs in found.items():
            runs.append(spent(kind, benchmark.model, benchmark.overrides, benchmark.task))
    return {"runs": found, "ratios": ratios(found[COMPILE], found[EXPORT]),
            "ratios_to_cut": ratios(found[COMPILE], found[EXPORT_CUT])}  # fmt: skip


def ratios(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> dict[str, float]:
    """Median over median, of the wall-clock seconds and of the processor's."""
    return {
        name: statistics.median(run[name] for run in ours) / statistics.median(run[name] for run in theirs)
        for name in ("seconds", "cpu_seconds")
    }


def compile_against_depth(repeats: int) -> RESULT:
    """The same Llama with 126 layers and with 16."""
    found: dict[str, list[dict[str, float]]] = {"16": [], "126": []}
    for _ in range(repeats):
        for depth, runs in found.items():
            runs.append(spent(COMPILE, "llama", {**LLAMA_1B, "num_hidden_layers": int(depth)}, LM))
    found_ratios = ratios(found["126"], found["16"])
    return {"aim": "compile time with 126 layers at most 1.3 times that with 16", "runs": found,
            "ratios": found_ratios, "command": "python -m benchmarks.run --only compile_against_depth",
            "machine": machine(), "busy": busy(), "holds": found_ratios["seconds"] <= 1.3}  # fmt: skip


def compile_memory() -> RESULT:
    """Peak memory of all processes together, over a compile of a 70-billion-parameter Llama without weights."""
    with tempfile.TemporaryDirectory(prefix="hf2khc-bench-") as folder:
        scratch = Path(folder)
        options = (f"--task={LM}", "--no-weights", "--json", "-o", str(scratch / "package"))
        words = command.arguments("llama", LLAMA_70B, *options)
        done = subprocess.run([*command.executable(), *words], check=True, capture_output=True, text=True)
        stages = json.loads(done.stdout)["stages"]
    peak = max(stage["peak_bytes"] for stage in stages)
    return {
        "aim": "peak memory under 1.5 GB",
        "stages": stages,
        "peak_bytes": peak,
        "machine": machine(),
        "busy": busy(),
        "command": command.quoted(words, scratch),
        "holds": peak < 1.5e9,
    }


def transfer_memory(results: Path) -> RESULT:
    """Memory of the transfer of the 1B model's weights above its imports, from that model's own result.

    Raises:
        FileNotFoundError: the model was not measured yet.
    """
    measured = json.loads((results / "llama.json").read_text())
    above = measured.get("weights", {}).get("memory_above_imports_bytes")
    return {"aim": "at most 1 GB above the import footprint", "bytes": above, "weights": measured.get("weights"),
            "command": measured["command"], "machine": measured["machine"],
            "holds": above is not None and above <= 1e9}  # fmt: skip


def all_aims(results: Path, repeats: int) -> dict[str, Callable[[], RESULT]]:
    """The aims by name, cheapest first."""
    return {
        "compile_memory": compile_memory,
        "compile_against_depth": lambda: compile_against_depth(repeats),
        "compile_against_export": lambda: compile_against_export(repeats),
        "transfer_memory": lambda: transfer_memory(results),
        "generation": generation,
    }
