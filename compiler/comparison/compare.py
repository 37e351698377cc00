"""Both ways on one model: the model's facts first, then each way in a process of its own, on the same weights."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hf2khc.comparison.judge import CRITERIA, Cell, cells
from hf2khc.comparison.one_way import DYNAMIC, STATIC
from hf2khc.diagnostics import ConversionError
from hf2khc.driver.report import table
from hf2khc.process import run_job

WAYS = (STATIC, DYNAMIC)
_TORCH = {"KERAS_BACKEND": "torch"}


@dataclass(frozen=True)
class Comparison:
    """One model, both ways.

    Args:
        model: as the user named it.
        title: with what was changed.
        model_class: the class in transformers.
        cells: by way, by criterion.
        proved: by way, whether every output holds.
        seconds: by way, of the conversion without the proof; None where there was none.
    """

    model: str
    title: str
    model_class: str
    cells: Mapping[str, Mapping[str, Cell]]
    proved: Mapping[str, bool]
    seconds: Mapping[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return json.loads(json.dumps(asdict(self)))


def compare(
    model: str,
    *,
    random_init: bool = False,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    task: str | None = None,
    trust_remote_code: bool = False,
    backends: Sequence[str] = ("torch",),
) -> Comparison:
    """Converts a model both ways and measures each; arguments as for `hf2khc.convert`.

    Raises:
        ConversionError: what keeps the model itself from being read. What keeps a way from converting it is a result.
    """
    options = {
        "random_init": random_init, "overrides": dict(overrides or {}), "task": task,
        "trust_remote_code": trust_remote_code,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="hf2khc-compare-") as folder:
        job: dict[str, Any] = {"model": model, "options": options, "seed": seed, "directory": folder}
        facts = run_job("hf2khc.comparison.model_facts", job, _TORCH)
        results = {}
        for way in WAYS:
            job = {"way": way, "directory": facts["directory"], "output": str(Path(folder, f"{way}-package")),
                   "trust_remote_code": trust_remote_code, "backends": list(backends)}  # fmt: skip
            try:
                results[way] = run_job("hf2khc.comparison.one_way", job, _TORCH)
            except ConversionError as error:  # the process ended without an answer
                results[way] = {"error": asdict(error.diagnostics[0])}
    return Comparison(
        model, _title(model, overrides or {}), facts["class"],
        {way: cells(facts, result) for way, result in results.items()},
        {way: bool(result.get("proved")) for way, result in results.items()},
        {way: result.get("seconds") for way, result in results.items()},
    )  # fmt: skip


def _title(model: str, overrides: Mapping[str, Any]) -> str:
    changes = ", ".join(f"{name}={value}" for name, value in overrides.items())
    return f"{model} ({changes})" if changes else model


def rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """The table: a row for each criterion, with a cell for each way."""
    return [(name, *(comparison.cells[way][name].text for way in WAYS)) for name in CRITERIA]


NOTE = """\
static: KerasHub's own converter, or a template filled from config.json; nothing is traced. dynamic: the compiler.
Modules, classes and tensors are those of the real model that hold parameters. Errors are the largest over all input
sets, relative to the largest magnitude of transformers' output in float64. Time and memory are of the conversion
without its proof, imports included; they are what this machine gave in this run."""


def markdown(comparisons: Sequence[Comparison]) -> str:
    """The tables of all models as Markdown."""
    parts = [f"# Static and dynamic\n\n{NOTE}"]
    for each in comparisons:
        parts.append(f"## {each.title}\n\n{each.model_class}\n\n" + table(("", *WAYS), rows(each)))
    return "\n\n".join(parts) + "\n"
