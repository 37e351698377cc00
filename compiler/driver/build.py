"""From an opened model to a proved package in a folder."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hf2khc.capture.source import Source
from hf2khc.check.contradiction import CONTRADICTION
from hf2khc.check.proof import CACHED, CANNOT_DECODE, Proof
from hf2khc.diagnostics import ConversionError, Diagnostic
from hf2khc.driver.compile import Compiled, at_its_own_sizes, compile_model, without_cache
from hf2khc.driver.describe import describe
from hf2khc.driver.fill import check_weights, fill, with_weights
from hf2khc.driver.gradients import gradients_of_package
from hf2khc.driver.layout import lay_out
from hf2khc.driver.other_config import other_config
from hf2khc.driver.proof import prove_package
from hf2khc.driver.report import ERROR_COLUMNS, Report, error_cells, worst, write_report
from hf2khc.driver.stages import StageTimer
from hf2khc.driver.twin_worker import TwinWorker
from hf2khc.weights.rows import WeightMap

MOST_DIAGNOSTICS = 5
NOT_TRIED = ("not tried: the package was not proved",)
SCRATCH = ".random-weights-"


@dataclass(frozen=True)
class Built:
    """What stands in the folder, and how it came about.

    Args:
        compiled: the passes' result.
        sources: text of the package's source files, by path in the package.
        weight_map: which tensors of the checkpoint fill which Keras variables.
        report: what report.json holds.
    """

    compiled: Compiled
    sources: Mapping[str, str]
    weight_map: WeightMap
    report: Report


def build_package(
    source: Source,
    directory: Path,
    twin: TwinWorker,
    stages: StageTimer,
    *,
    weights: bool,
    check: bool,
    backends: Sequence[str] | None,
    seed: int,
) -> Built:
    """Compiles, writes, fills, proves and reports.

    Args:
        source: the model.
        directory: an empty folder.
        twin: compiles the twin meanwhile.
        stages: told which stage begins.
        weights: write the weights; without them there is nothing to prove.
        check: prove the package.
        backends: Keras backends to prove it on; those installed by default.
        seed: of random weights and of the inputs of the proof.

    Raises:
        ConversionError: anything that keeps the package from being right; what stands in the folder is then worthless.
    """
    if weights:
        check_weights(source, directory)
    compiled = compile_model(source, twin, validate=True, on_stage=stages)
    stages("write")
    compiled, sources = _written(compiled, directory)
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=directory) as scratch:
        stages("weights")
        weighted = with_weights(source, Path(scratch), seed) if weights else source
        filled = fill(weighted, compiled.plan, directory, weights=weights)
        proof, gradients, reasons = None, None, compiled.generalises or NOT_TRIED
        if check and weights:
            stages("check")
            proof = prove_package(directory, weighted, compiled, backends, seed)
            if _fails_in_cache(proof):
                compiled = without_cache(compiled, "cached decoding does not give what the whole sequence gives")
                sources = lay_out(compiled.plan, compiled.signature, directory)
                proof = prove_package(directory, weighted, compiled, backends, seed)
            require_proof(proof)
            stages("other config")
            other = other_config(directory, source, compiled, seed)
            reasons, gradients = other.reasons, other.gradients
            if reasons and compiled.twin and not compiled.generalises:
                compiled = at_its_own_sizes(compiled)
                sources = lay_out(compiled.plan, compiled.signature, directory)
            if gradients is None:
                gradients = gradients_of_package(directory, weighted, compiled, "the package itself", seed)
    stages.end()
    report = describe(source, compiled, filled, proof, gradients, reasons, stages.records, seed, sources)
    write_report(report, directory)
    return Built(compiled, sources, filled.weight_map, report)


def _written(compiled: Compiled, directory: Path) -> tuple[Compiled, dict[str, str]]:
    """The sources of the package, without a cached step where that is what cannot be written."""
    try:
        return compiled, lay_out(compiled.plan, compiled.signature, directory)
    except ConversionError as error:
        if compiled.plan.decoding is None:
            raise
        compiled = without_cache(compiled, f"the cached step cannot be written: {error.diagnostics[0].message}")
        return compiled, lay_out(compiled.plan, compiled.signature, directory)


def _fails_in_cache(proof: Proof) -> bool:
    """Whether nothing is wrong but the cached step; a backend that cannot run it gives no rows."""
    wrong = [row for row in proof.rows if not row.holds]
    broken = [diagnostic for diagnostic in proof.diagnostics if diagnostic.message.startswith(CANNOT_DECODE)]
    return (
        bool(wrong or broken)
        and all(row.case.endswith(CACHED) for row in wrong)
        and (len(wrong) + len(broken) == len(proof.diagnostics))
    )


def require_proof(proof: Proof) -> None:
    """A package that is not proved is not published."""
    if proof.holds:
        return
    failed = [row for row in proof.rows if not row.holds]
    message, table = "not every backend can run the package", ""
    if failed:
        message = f"the package computes something else: {len(failed)} of {len(proof.rows)} comparisons fail"
        message = next((found.message for found in proof.diagnostics if found.code == CONTRADICTION), message)
        table = "\n".join("  ".join(line) for line in [ERROR_COLUMNS, *(error_cells(row) for row in worst(failed))])
    hint = "nothing was written; --no-check writes the package all the same, to look into it"
    summary = Diagnostic("proof-failed", message, excerpt=table, hint=hint)
    raise ConversionError(summary, *proof.diagnostics[:MOST_DIAGNOSTICS])
