"""The report of a conversion: plain data, written as report.json for programs and REPORT.md for people."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hf2khc.check.gradient_report import Gradients
from hf2khc.check.proof import OutputError, Run
from hf2khc.driver.package import REPORT_FILE
from hf2khc.driver.stages import StageRecord

FORMAT = 1
READABLE_FILE = "REPORT.md"
MOST_PROBLEMS = 10


@dataclass(frozen=True)
class Report:
    """What was converted, into what, how well, and at what cost.

    Args:
        source: the transformers model: name, class, config class, where its weights come from.
        sizes: scalar fields of the config.
        parameters: number of elements of transformers' model and of the package, which were checked to agree, and what
            accounts for a difference.
        code: size of the source, see `source_metrics`, and the share of the parameters in layers of Keras.
        idioms: recognised idioms and their count, per layer class of the package.
        residue: operations that no idiom took up, written as plain ops, with their count.
        config_generalises: whether the package at another config equals the transformers model at that config.
        config_kept: fields of the config that are the same at the other one, each with what happens where it differs.
        reasons: why it does not, one sentence each.
        notes: what had to be done otherwise than planned to trace the model.
        validation: largest error of each pass, on the twin in float64.
        errors: the proof, one row per backend, output and case; empty when it was skipped.
        gradients: the comparison of every parameter's gradient; None when it was not made.
        runs: time and memory of the processes of the proof.
        proved: True or False as the proof says, None when it was skipped.
        stages: seconds and peak memory per stage.
        weights: what was transferred: variables, bytes, seconds.
        versions: of the packages that took part.
        way: how the package came about, where it was not compiled; empty where it was.
    """

    source: Mapping[str, Any]
    sizes: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, int] = field(default_factory=dict)
    code: Mapping[str, int | float] = field(default_factory=dict)
    idioms: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    residue: Mapping[str, int] = field(default_factory=dict)
    config_generalises: bool = False
    config_kept: Mapping[str, str] = field(default_factory=dict)
    reasons: Sequence[str] = ()
    notes: Sequence[str] = ()
    validation: Mapping[str, float] = field(default_factory=dict)
    errors: Sequence[OutputError] = ()
    gradients: Gradients | None = None
    runs: Sequence[Run] = ()
    proved: bool | None = None
    stages: Sequence[StageRecord] = ()
    weights: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    way: str = ""


def to_json(report: Report) -> dict[str, Any]:
    """The report as JSON-able data."""
    return {"format": FORMAT, **asdict(report)}


def write_report(report: Report, directory: Path) -> None:
    """Writes `report.json` and `REPORT.md` into `directory`."""
    text = json.dumps(to_json(report), indent=2, ensure_ascii=False, allow_nan=True)
    (directory / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
    (directory / READABLE_FILE).write_text(to_markdown(report), encoding="utf-8")


def worst(errors: Iterable[OutputError]) -> list[OutputError]:
    """Of each backend and output the case that comes closest to its bound, or exceeds it most."""
    found: dict[tuple[str, str], OutputError] = {}
    for row in errors:
        before = found.get((row.backend, row.output))
        if before is None or _nearness(row) > _nearness(before):
            found[row.backend, row.output] = row
    return list(found.values())


def _nearness(row: OutputError) -> tuple[bool, float]:
    error = float("inf") if row.ours is None else row.ours
    return (not row.holds, error / row.bound if row.bound else error)


def to_markdown(report: Report) -> str:
    """The report as a person reads it."""
    parts = [
        f"# {report.source.get('model', '')} as a KerasHub package",
        _summary(report),
        _fields("Source model", report.source),
        _fields("Config", report.sizes),
        _fields("Parameters", {name: f"{count:,}" for name, count in report.parameters.items()}),
        _fields("Source code", report.code),
        _errors(report),
        _gradients(report.gradients),
        _idioms(report),
        _fields("Residue: operations outside every idiom", report.residue),
        _validation(report.validation),
        _notes(report),
        _stages(report.stages),
        _fields("Weights", report.weights),
        _fields("Versions", report.versions),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(report: Report) -> str:
    verdict = {
        True: "The proof holds: on every backend below both models compute the same function.",
        False: "**The proof does not hold.** The last column of the table says where.",
        None: "The proof was skipped; nothing is claimed about the numbers.",
    }[report.proved]
    if report.way:
        unproven = "" if report.proved else "**This package is unproven.** "
        return f"{report.way}\n\n{unproven}{verdict}"
    if report.config_generalises:
        there = "Built at another config, the package computes what transformers computes there, too."
        if not report.config_kept:
            return f"{verdict}\n\n{there}"
        kept = [f"- `{name}`: {reason}" for name, reason in report.config_kept.items()]
        return "\n".join([verdict, "", f"{there} These fields are the same at both:", "", *kept])
    reasons = [f"- {reason}" for reason in report.reasons]
    return "\n".join([verdict, "", "Not shown at another config:", "", *reasons])


def _fields(title: str, values: Mapping[str, Any]) -> str:
    if not values:
        return ""
    return f"## {title}\n\n" + table(("", ""), [(name, str(value)) for name, value in values.items()])


def _errors(report: Report) -> str:
    if not report.errors:
        return ""
    note = (
        "Errors are relative to the largest magnitude of transformers' output in float64; `transformers` is its own "
        "error in float32. Of each output the case that comes nearest to its bound; all cases are in report.json."
    )
    return f"## Proof\n\n{note}\n\n" + table(ERROR_COLUMNS, [error_cells(row) for row in worst(report.errors)])


NUMBER_COLUMNS = ("error", "transformers", "bound")
ERROR_COLUMNS = ("backend", "output", "case", *NUMBER_COLUMNS, "verdict")


def error_cells(row: OutputError) -> tuple[str, ...]:
    """A row of the error table, as text."""
    numbers = ("-" if value is None else f"{value:.1e}" for value in (row.ours, row.theirs, row.bound))
    return (row.backend, row.output, row.case, *numbers, row.problem or ("holds" if row.holds else "differs"))


def _gradients(found: Gradients | None) -> str:
    if found is None:
        return ""
    verdict = "agree with transformers'" if found.holds else "**do not all agree with transformers'**"
    line = (
        f"The gradients of {found.parameters} parameters {verdict}, both in float64, on {found.config}: "
        f"largest relative error {found.largest:.1e}, bound {found.bound:.1e}."
    )
    details = (*found.problems[:MOST_PROBLEMS], *(f"not compared: {row}" for row in found.left_out))
    return "\n".join([line, *(f"- {detail}" for detail in details)])


def _idioms(report: Report) -> str:
    rows = [(layer, counted(found)) for layer, found in report.idioms.items()]
    return "## Idioms recognised\n\n" + table(("layer", "idioms"), rows) if rows else ""


def counted(counts: Mapping[str, int]) -> str:
    """`4 EinsumDense, Dropout`: names with how often each occurs."""
    return ", ".join(name if count == 1 else f"{count} {name}" for name, count in counts.items())


def _validation(validation: Mapping[str, float]) -> str:
    rows = [(name, f"{error:.1e}") for name, error in validation.items()]
    return (
        "## Passes, validated in float64 on a small twin\n\n" + table(("pass", "largest error"), rows) if rows else ""
    )


def _notes(report: Report) -> str:
    title = "## Notes" if report.way else "## Notes of the capture"
    return "\n".join([title, "", *(f"- {note}" for note in report.notes)]) if report.notes else ""


def _stages(stages: Sequence[StageRecord]) -> str:
    rows = [(stage.name, f"{stage.seconds:.2f}", f"{stage.peak_bytes / 2**20:,.0f}") for stage in stages]
    return "## Stages\n\n" + table(("stage", "seconds", "peak MiB"), rows) if rows else ""


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
