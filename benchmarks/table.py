"""The tables in README.md, made from the result files."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.models import MODELS

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
BACKENDS = ("jax", "tensorflow", "torch")
CLOCKS = {"seconds": "wall clock", "cpu_seconds": "processor"}
# Results that other commands make: `make zoo`, `make beyond` and `make decoders`, with pages in docs/, and
# `make tokenizers`.
ELSEWHERE = ("zoo", "beyond", "decoders", "tokenizers")
AIMS = ("compile_against_export", "compile_memory", "transfer_memory", "compile_against_depth",
        "generation")  # fmt: skip
Result = Mapping[str, Any]


def update(readme: Path, results: Path) -> None:
    """Rewrite what stands between the two marks of README.md.

    Raises:
        ValueError: a mark is missing.
    """
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    readme.write_text(f"{before}{BEGIN}\n\n{render(read(results))}\n\n{END}{after}", encoding="utf-8")


def read(results: Path) -> dict[str, Result]:
    """Results by name."""
    paths = (path for path in sorted(results.glob("*.json")) if path.stem not in ELSEWHERE)
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def render(results: Mapping[str, Result]) -> str:
    """All tables of the results that are there."""
    models = [results[benchmark.name] for benchmark in MODELS if benchmark.name in results]
    done = [result for result in models if "failure" not in result]
    parts = [_parity(models), _stages(done), _differences(done), _aims(results), _export(results),
             _generation(results), _machines(results)]  # fmt: skip
    return "\n\n".join(part for part in parts if part)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _parity(models: Sequence[Result]) -> str:
    if not models:
        return ""
    note = (
        "Largest error per output over all input sets, relative to the largest magnitude of transformers in float64; "
        "beside it transformers' own error in float32."
    )
    columns = ("model", "parameters", "output", *BACKENDS, "transformers", "verdict")
    return f"### Parity\n\n{note}\n\n" + _table(columns, (row for result in models for row in _parity_rows(result)))


def _parity_rows(result: Result) -> Iterable[Sequence[str]]:
    if "failure" in result:
        error = result["failure"][0]
        yield (result["title"], "", "", "", "", "", "", f"fails: [{error['code']}] {error['message']}")
        return
    title, count = result["title"], f"{result['parameters']['transformers'] / 1e6:,.1f} M"
    for output in dict.fromkeys(row["output"] for row in result["parity"]):
        rows = {row["backend"]: row for row in result["parity"] if row["output"] == output}
        errors = [_number(rows[backend]["ours"]) if backend in rows else "" for backend in BACKENDS]
        theirs = _number(max(row["theirs"] for row in rows.values()))
        verdict = "holds" if all(row["holds"] for row in rows.values()) else "**differs**"
        yield (title, count, output, *errors, theirs, verdict)
        title = count = ""


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _stages(models: Sequence[Result]) -> str:
    names = list(dict.fromkeys(stage["name"] for result in models for stage in result["stages"]))
    if not names:
        return ""
    note = "Seconds / peak memory of all processes together in GB; `validate` is the wait for the twin's process."
    rows = []
    for result in models:
        found = {
            stage["name"]: f"{stage['seconds']:.1f} / {stage['peak_bytes'] / 1e9:.1f}" for stage in result["stages"]
        }
        total = f"{sum(stage['seconds'] for stage in result['stages']):.0f} s"
        rows.append((result["title"], *(found.get(name, "") for name in names), total))
    return f"### Time and memory per stage\n\n{note}\n\n" + _table(("model", *names, "all"), rows)


def _differences(models: Sequence[Result]) -> str:
    rows = [
        (result["title"], output, f"{value:.1e}")
        for result in models
        for output, value in result.get("largest_difference", {}).items()
    ]
    note = (
        "Largest absolute difference from transformers in float32, of the package as `hf2khc.load` gives it, on torch."
    )
    return f"### Real weights\n\n{note}\n\n" + _table(("model", "output", "difference"), rows) if rows else ""


def _aims(results: Mapping[str, Result]) -> str:
    rows = [
        (results[name]["aim"], _reached(name, results[name]), "yes" if results[name]["holds"] else "no",
         f"`{results[name]['command']}`")
        for name in AIMS if name in results
    ]  # fmt: skip
    return "### Aims\n\n" + _table(("aim", "reached", "holds", "command"), rows) if rows else ""


def _reached(name: str, result: Result) -> str:
    if name == "compile_against_export":
        rows = [row["ratios"] for row in result["models"].values()]
        return ", ".join(f"{label} {_span([row[key] for row in rows])}" for key, label in CLOCKS.items())
    if name == "compile_against_depth":
        return ", ".join(f"{label} {result['ratios'][key]:.2f}" for key, label in CLOCKS.items())
    if name == "generation":
        return f"{_speed_ratios(result)} times KerasHub's tokens per second"
    size = result.get("peak_bytes", result.get("bytes"))
    return "not measured" if size is None else f"{size / 1e9:.2f} GB"


def _export(results: Mapping[str, Result]) -> str:
    if "compile_against_export" not in results:
        return ""
    rows = []
    for name, row in results["compile_against_export"]["models"].items():
        times = [
            " / ".join(f"{median(run[key] for run in runs):.1f}" for key in CLOCKS) for runs in row["runs"].values()
        ]
        both = [" / ".join(f"{row[kind][key]:.2f}" for key in CLOCKS) for kind in ("ratios", "ratios_to_cut")]
        rows.append((name, *times, *both))
    columns = ("model", "torch.export", "the same, layers cut", "compile", "compile / export", "compile / cut")
    note = "After all imports: wall-clock seconds / seconds of the processor in all processes, medians."
    return f"### Compile against torch.export\n\n{note}\n\n" + _table(columns, rows)


def _generation(results: Mapping[str, Result]) -> str:
    if "generation" not in results:
        return ""
    found = results["generation"]
    rows = [
        (name, way, backend, *(_speed(spent, what) for what in ("prefill", "decode")), *_beside(spent))
        for name, ways in found["models"].items()
        for way, backends in ways.items()
        for backend, spent in backends.items()
    ]
    note = f"Greedily, {found['batch']} prompts of {found['prompt']} tokens, {found['new']} more; tokens per second."
    note += (
        " All ways of a backend take turns; beside KerasHub's class: the median ratio of a turn, and the turns ahead."
    )
    columns = ("model", "way", "backend", "prefill", "decode", "prefill beside KerasHub", "decode beside KerasHub")
    return f"### Generation\n\n{note}\n\n" + _table(columns, rows)


def _beside(spent: Mapping[str, Any]) -> tuple[str, str]:
    if "ratios" not in spent:
        return "", ""
    prefill, decode = (
        f"{spent['ratios'][k]:.2f} ({spent['ahead'][k]} of {spent['turns']})" for k in ("prefill", "decode")
    )
    return prefill, decode


def _speed(spent: Mapping[str, Any], what: str) -> str:
    return f"{spent[what]:,.0f}" if what in spent else f"fails: {spent['failure']}"


def _speed_ratios(result: Result) -> str:
    """Of each model and backend, what the package decodes against what KerasHub's class does."""
    rows = [row for ways in result["models"].values() for row in ways["package"].values() if "ratios" in row]
    return _span([row["ratios"]["decode"] for row in rows]) if rows else "no"


def _span(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


def _machines(results: Mapping[str, Result]) -> str:
    machines = {json.dumps(result["machine"], sort_keys=True): result["machine"] for result in results.values()}
    found = [f"{m['processor']}, {m['cores']} cores, {m['memory_gib']} GiB" for m in machines.values()]
    return "Measured on: " + "; ".join(found) + "." if found else ""
