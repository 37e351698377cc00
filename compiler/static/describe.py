"""The report of a package that was made without a trace."""

import math
from collections.abc import Sequence

from hf2khc.capture.source import Source
from hf2khc.check.proof import Proof
from hf2khc.driver.describe import about_source, scalars, versions
from hf2khc.driver.report import Report
from hf2khc.driver.stages import StageRecord
from hf2khc.static.build import BuiltStatic

MOST_NAMES = 12


def describe_static(
    source: Source, built: BuiltStatic, proof: Proof | None, stages: Sequence[StageRecord], seed: int
) -> Report:
    """The report: what was placed, what was not, and that nothing is claimed."""
    left = sorted(set(built.tensors) - built.read)
    empty = sorted(set(built.layers) - set(built.placed))
    return Report(
        source={**about_source(source, seed), "package": ", ".join(built.classes)},
        sizes=dict(scalars(source.config)),
        parameters={
            "transformers": sum(math.prod(shape) for shape in built.tensors.values()), "keras": built.parameters,
        },
        notes=(
            *built.notes,
            *_listed("tensors of the checkpoint that were not placed", left),
            *_listed("variables without a tensor, which keep their initial values", empty),
        ),
        errors=proof.rows if proof is not None else (),
        runs=proof.runs if proof is not None else (),
        proved=None if proof is None else proof.holds,
        stages=stages,
        weights={
            "tensors": len(built.tensors), "tensors placed": len(built.read), "tensors not placed": len(left),
            "variables": len(built.layers), "variables without a tensor": len(empty),
        },
        versions=dict(versions()),
        way=built.way,
    )  # fmt: skip


def _listed(what: str, names: Sequence[str]) -> tuple[str, ...]:
    shown = ", ".join(names[:MOST_NAMES]) + (", ..." if len(names) > MOST_NAMES else "")
    return (f"{len(names)} {what}: {shown}",) if names else ()
