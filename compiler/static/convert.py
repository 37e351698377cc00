"""`hf2khc MODEL --static`: a package from config.json and the weights' names, with no trace and no proof of its own."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf2khc.check.proof import Proof
from hf2khc.check.prove import prove
from hf2khc.driver.convert import OnEvent, destination
from hf2khc.driver.report import Report, write_report
from hf2khc.driver.stages import StageTimer

if TYPE_CHECKING:
    from hf2khc.capture.source import Source
    from hf2khc.static.build import BuiltStatic

SCRATCH = ".random-weights-"


@dataclass(frozen=True)
class Static:
    """A package that was made without a trace.

    Args:
        directory: where it stands; None when no output was asked for.
        report: what report.json holds.
        built: what was placed where.
    """

    directory: Path | None
    report: Report
    built: "BuiltStatic"


def convert_static(
    model: str,
    output: str | Path | None = None,
    *,
    random_init: bool = False,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    task: str | None = None,
    trust_remote_code: bool = False,
    check: bool = False,
    backends: Sequence[str] | None = None,
    overwrite: bool = False,
    on_event: OnEvent | None = None,
) -> Static:
    """Fills KerasHub's own architecture, or a template, from the config and the tensors' names.

    Arguments as for `hf2khc.convert`, but for these.

    Args:
        check: run the proof, which this way does not claim to pass.

    Raises:
        ConversionError: `kerashub-converter`, `no-template`, `proof-failed`, or what keeps the model from being read.
    """
    with StageTimer(on_event) as stages, destination(output, overwrite) as staging:
        stages("open")
        from hf2khc.capture.source import open_source
        from hf2khc.driver.fill import with_weights

        source = open_source(
            model, random_init=random_init, task=task, overrides=dict(overrides or {}),
            trust_remote_code=trust_remote_code,
        )  # fmt: skip
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=staging) as scratch:
            stages("weights")
            weighted = with_weights(source, Path(scratch), seed)
            from hf2khc.driver.build import require_proof
            from hf2khc.static.build import build_static

            stages("fill")
            built = build_static(weighted, staging)
            proof = None
            if check:
                stages("check")
                proof = prove_static(staging, weighted, built.signature, backends, seed)
                require_proof(proof)
        stages.end()
        from hf2khc.static.describe import describe_static

        report = describe_static(source, built, proof, stages.records, seed)
        write_report(report, staging)
    return Static(None if output is None else Path(output), report, built)


def prove_static(
    directory: Path, source: "Source", signature: Mapping[str, Any], backends: Sequence[str] | None, seed: int = 0
) -> Proof:
    """The proof of a package that was made without a trace: what the model takes is read off its class and its config.

    Raises:
        ConversionError: `inputs-unknown`; `reference`, when the transformers model cannot be run.
    """
    from hf2khc.driver.proof import installed_backends, proof_cases, reference
    from hf2khc.static.inputs import untraced

    cases = proof_cases(source, untraced(source), seed)
    return prove(directory, reference(source), cases, signature, backends or installed_backends())
