"""The report of a finished conversion, put together from what each stage knows."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from hf2khc.capture.generation_defaults import left_out
from hf2khc.capture.source import Source
from hf2khc.check.gradient_report import Gradients
from hf2khc.check.proof import Proof
from hf2khc.driver.fill import Filled
from hf2khc.driver.report import Report
from hf2khc.driver.source_metrics import source_metrics
from hf2khc.driver.stages import StageRecord
from hf2khc.write.task_class import task_class

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from hf2khc.driver.compile import Compiled

_PACKAGES = ("hf2khc", "torch", "transformers", "keras", "keras-hub", "numpy", "jax", "tensorflow")
_NO_SIZES = ("_name_or_path", "chunk_size_feed_forward", "dtype", "model_type", "transformers_version")


def describe(
    source: Source,
    compiled: "Compiled",
    filled: Filled,
    proof: Proof | None,
    gradients: Gradients | None,
    reasons: Sequence[str],
    stages: Sequence[StageRecord],
    seed: int,
    sources: Mapping[str, str],
) -> Report:
    """The report.

    Args:
        source: the model as the user named it.
        compiled: the passes' result.
        filled: the weights.
        proof: None when it was skipped.
        gradients: None when they were not compared.
        reasons: why the package is not known to be right at another config; empty where it is.
        stages: what was timed so far.
        seed: of random weights.
        sources: text of the package's source files.
    """
    stats = filled.stats
    return Report(
        source={
            **about_source(source, seed),
            **({"task": task_class(compiled.plan)} if compiled.plan.head else {}),
        },
        sizes=dict(scalars(source.config)),
        parameters=filled.parameters,
        code={
            **source_metrics(sources, compiled.program, source.config.model_type),
            "core_layer_share": round(filled.core_share, 4),
        },
        idioms=compiled.idioms,
        residue=compiled.residue,
        config_generalises=not reasons,
        config_kept=compiled.twin.kept if compiled.twin is not None else {},
        reasons=tuple(reasons),
        notes=(*compiled.captured.notes, *_generation(compiled, source), *_inputs(compiled), *_restored(proof)),
        validation=compiled.validation,
        errors=proof.rows if proof is not None else (),
        runs=proof.runs if proof is not None else (),
        gradients=gradients,
        proved=None if proof is None else proof.holds,
        stages=stages,
        weights={
            "variables": stats.variables,
            "written_bytes": stats.written_bytes,
            "seconds": round(stats.seconds, 3),
            "memory_above_imports_bytes": stats.peak_bytes - stats.base_bytes,
            "not_consumed": len(filled.weight_map.not_consumed),
            "aliases": len(filled.weight_map.aliases),
        },
        versions=dict(versions()),
    )


def _generation(compiled: "Compiled", source: Source) -> Iterator[str]:
    if compiled.cacheless:
        yield f"generation runs the whole model for every token: {compiled.cacheless}"
    left = left_out(source) if compiled.uncached is not None else {}
    if left:
        named = ", ".join(f"{name}={value}" for name, value in left.items())
        yield f"generation leaves out what the generation config asks for beside sampler and ends: {named}"


def _inputs(compiled: "Compiled") -> Iterator[str]:
    plan = compiled.plan
    parts = (("text", compiled.textless, plan.text, "a tokenizer"),
             ("images", compiled.imageless, plan.images, "an image converter"))  # fmt: skip
    for kind, reason, part, name in parts:
        if reason and part is None:
            yield f"the package makes no inputs of {kind}: {reason}"
        elif reason:
            yield f"the package has {name}, but no preprocessor that makes the model's inputs with it: {reason}"


def _restored(proof: Proof | None) -> Iterator[str]:
    for name in (name for run in proof.runs for name in run.restored) if proof is not None else ():
        yield (
            f"transformers initialises a part of {name} again once it has loaded it; the package has what is stored,"
            " and so has the model it is compared with"
        )


def about_source(source: Source, seed: int) -> dict[str, str]:
    """What was converted."""
    return {
        "model": source.model,
        "class": source.model_class.__name__,
        "model_type": source.config.model_type,
        "weights": _origin_of_weights(source, seed),
    }


def _origin_of_weights(source: Source, seed: int) -> str:
    if source.live is not None:
        return "the model that was passed in"
    return f"random, seed {seed}" if source.directory is None else str(source.directory)


def scalars(config: "PreTrainedConfig", prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Numbers and words of a config, without what transformers adds to each; fields of sub-configs are dotted."""
    for name, value in config.to_dict().items():
        if name in config.sub_configs:
            part = getattr(config, name)
            if part is not None:
                yield from scalars(part, f"{prefix}{name}.")
        elif isinstance(value, int | float | str) and not isinstance(value, bool) and name not in _NO_SIZES:
            yield f"{prefix}{name}", value


def versions() -> Iterator[tuple[str, str]]:
    """Names and versions of the packages that took part."""
    yield "python", platform.python_version()
    for name in _PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue
