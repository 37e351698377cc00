"""The document of the comparison: a summary, its chart, and the table of every model."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.compare_chart import chart

WAYS = ("static", "dynamic")
CHART = "static_vs_dynamic.svg"
BEGIN, END = "<!-- compare: begin -->", "<!-- compare: end -->"
INTRODUCTION = """\
# Static against dynamic, measured

*Static* fills KerasHub's own converter, or where there is none a template, from `config.json`
(`hf2khc MODEL --static`). *Dynamic* is the compiler. `make compare` runs both on the models below, each in a process
of its own and on the same random weights, and writes this document. Sizes are small but for those that say otherwise;
what is right does not depend on the size.

Modules, classes and tensors are those of the real model that hold parameters. Errors are the largest over all input
sets, relative to the largest magnitude of transformers' output in float64, on torch. Right means that every output
holds within the bound of the proof. Time and memory are of the conversion without its proof, imports included."""
Result = Mapping[str, Any]


def write_document(path: Path, results: Sequence[Result]) -> None:
    """Writes the document, and the chart beside it."""
    good = [result for result in results if "failure" not in result]
    shares = {way: _shares(good, way) for way in WAYS}
    seconds = {way: _seconds(good, way) for way in WAYS}
    (path.parent / CHART).write_text(chart(shares, seconds), encoding="utf-8")
    parts = [INTRODUCTION, summary(results), f"![Share that is right, by criterion]({CHART})", _overview(results)]
    path.write_text("\n\n".join([*parts, *map(_model, results), _machine(results)]) + "\n", encoding="utf-8")


def summary(results: Sequence[Result]) -> str:
    """The sentence that the README quotes."""
    good = [result for result in results if "failure" not in result]
    texts = []
    for way in WAYS:
        proved = sum(result["proved"][way] for result in good)
        converted = sum(result["cells"][way]["new-model support"]["share"] == 1 for result in good)
        time = _seconds(good, way)
        shown = f", in {time:.0f} s (median)" if time is not None else ""
        texts.append(f"the {way} way converted {converted} and got {proved} right{shown}")
    return f"Of {len(good)} models and variants of their configs, {'; '.join(texts)}."


def quote(readme: Path, results: Sequence[Result]) -> None:
    """Writes the summary between the two marks in the README.

    Raises:
        ValueError: the marks are not there.
    """
    before, rest = readme.read_text(encoding="utf-8").split(f"{BEGIN}\n", 1)
    _, after = rest.split(END, 1)
    text = textwrap.fill(summary(results), 120, break_long_words=False, break_on_hyphens=False)
    readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def _shares(results: Sequence[Result], way: str) -> dict[str, float]:
    names = [name for name, cell in results[0]["cells"][way].items() if cell["share"] is not None] if results else []
    found = {name: [result["cells"][way].get(name, {}).get("share") for result in results] for name in names}
    return {name: fmean(share for share in shares if share is not None) for name, shares in found.items()}


def _seconds(results: Sequence[Result], way: str) -> float | None:
    times = [result["seconds"][way] for result in results if result["seconds"][way] is not None]
    return median(times) if times else None


def _overview(results: Sequence[Result]) -> str:
    columns = ("model", "kind of static", *(f"{way}: right" for way in WAYS), *(f"{way}: seconds" for way in WAYS))
    rows = []
    for result in results:
        if "failure" in result:
            rows.append((result["title"], f"not measured: {result['failure']}", "", "", "", ""))
            continue
        kind = result["cells"]["static"]["new-model support"]["text"].removeprefix("yes: ")
        right = ("yes" if result["proved"][way] else "no" for way in WAYS)
        seconds = ("" if (time := result["seconds"][way]) is None else f"{time:.1f}" for way in WAYS)
        rows.append((result["title"], kind, *right, *seconds))
    return table(columns, rows)


def _model(result: Result) -> str:
    head = f"## {result['title']}\n\n`{result['command']}`"
    if "failure" in result:
        return f"{head}\n\nNot measured: {result['failure']}"
    names = list(result["cells"]["static"])
    rows = [(name, *(result["cells"][way][name]["text"] for way in WAYS)) for name in names]
    return f"{head}\n\n" + table((result["model_class"], *WAYS), rows)


def _machine(results: Sequence[Result]) -> str:
    found = {f"{m['processor']}, {m['cores']} cores, {m['memory_gib']} GiB" for m in (r["machine"] for r in results)}
    load = max((result["busy"] for result in results), default=0)
    others = f"Up to {load} processes of this machine wanted a core meanwhile, which slows what is timed."
    return f"Measured on: {'; '.join(sorted(found))}. {others}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
