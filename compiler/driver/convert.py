"""The Python interface: convert a model to a package on disk, and load a package."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf2khc.diagnostics import fail
from hf2khc.driver.package import interruptible, staged
from hf2khc.driver.report import Report
from hf2khc.driver.stages import StageEvent, StageTimer
from hf2khc.driver.twin_worker import TwinWorker
from hf2khc.forking.servers import forked_children
from hf2khc.package import import_package, load_preset

if TYPE_CHECKING:
    from keras import Model
    from transformers import PreTrainedModel

    from hf2khc.driver.compile import Compiled
    from hf2khc.weights.rows import WeightMap

OnEvent = Callable[[StageEvent], None]
# Arrays or tensors by argument name, or several such sets.
Inputs = Mapping[str, Any] | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Conversion:
    """A finished conversion.

    Args:
        directory: where the package stands; None when no output was asked for.
        compiled: the program at every stage, with what was recognised.
        sources: text of the package's source files, by path in the package.
        signature: the content of signature.json.
        weight_map: which tensors of the checkpoint fill which Keras variables.
        report: what report.json holds.
    """

    directory: Path | None
    compiled: "Compiled"
    sources: Mapping[str, str]
    signature: Mapping[str, Any]
    weight_map: "WeightMap"
    report: Report


def convert(
    model: "str | Path | PreTrainedModel",
    output: str | Path | None = None,
    *,
    random_init: bool = False,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    task: str | None = None,
    trust_remote_code: bool = False,
    weights: bool = True,
    check: bool = True,
    backends: Sequence[str] | None = None,
    inputs: Inputs = (),
    overwrite: bool = False,
    on_event: OnEvent | None = None,
) -> Conversion:
    """Compiles a transformers model to a KerasHub package and proves that both compute the same.

    Args:
        model: a Hub id, a local directory, a model type (with `random_init`), or a model.
        output: folder of the package; None builds and proves it in a temporary one and keeps only what is returned.
        random_init: take the config alone, with random weights.
        overrides: values by dotted config field, with `random_init`.
        seed: of the random weights.
        task: family of Auto classes that chooses the class; the config's first architecture by default.
        trust_remote_code: run code that comes with the model.
        weights: write the weights; without them there is nothing to prove.
        check: prove it.
        backends: Keras backends to prove it on; those installed by default.
        inputs: what to trace the model with, where its config does not say what it takes or should not decide it:
            arrays or tensors by argument name, or several such sets. The model is captured with these inputs and no
            others. An axis is free where two sets differ in it, and so is the batch where every input has one. Integers
            that the config says nothing about keep the values given. The proof runs on every set, too.
        overwrite: replace a package that stands in `output`.
        on_event: told when a stage begins and ends.

    Raises:
        ConversionError: anything that keeps the package from being right; `output` is then as it was before.
    """
    with StageTimer(on_event) as stages, destination(output, overwrite) as staging, twin_worker() as twin:
        stages("open")
        # torch, transformers and keras come in here: a wrong output folder is refused before that.
        from hf2khc.capture.source import open_source

        source = open_source(
            model, random_init=random_init, task=task, overrides=dict(overrides or {}),
            trust_remote_code=trust_remote_code, examples=(inputs,) if isinstance(inputs, Mapping) else tuple(inputs),
        )  # fmt: skip
        from hf2khc.driver.build import build_package

        built = build_package(
            source, staging, twin, stages, weights=weights, check=check, backends=backends, seed=seed
        )  # fmt: skip
    directory = None if output is None else Path(output)
    compiled = built.compiled
    return Conversion(directory, compiled, built.sources, compiled.signature, built.weight_map, built.report)


def compile_only(
    model: "str | Path | PreTrainedModel",
    *,
    random_init: bool = False,
    overrides: Mapping[str, Any] | None = None,
    task: str | None = None,
    trust_remote_code: bool = False,
    inputs: Inputs = (),
    on_event: OnEvent | None = None,
) -> "Compiled":
    """The passes alone, validated: no weight is read and nothing is written. Arguments as for `convert`.

    Raises:
        ConversionError: anything that keeps the model from being compiled.
    """
    with StageTimer(on_event) as stages, interruptible(), twin_worker() as twin:
        stages("open")
        from hf2khc.capture.source import open_source

        source = open_source(
            model, random_init=random_init, task=task, overrides=dict(overrides or {}),
            trust_remote_code=trust_remote_code, examples=(inputs,) if isinstance(inputs, Mapping) else tuple(inputs),
        )  # fmt: skip
        from hf2khc.driver.compile import compile_model

        return compile_model(source, twin, validate=True, on_stage=stages)


def load(directory: str | Path) -> "Model":
    """Loads a package: a Keras model with its weights, on the Keras backend in force.

    Args:
        directory: what `convert` wrote.

    Raises:
        ConversionError: `package`, when the folder holds no package or it cannot be loaded; `no-weights`.
    """
    folder, preset = Path(directory), Path(directory, "preset")
    if not (preset / "config.json").is_file():
        message, hint = "the folder holds no package: preset/config.json is missing", "give a folder that hf2khc wrote"
        raise fail("package", message, location=str(folder), hint=hint)
    if not any(preset.glob("model*.weights.*")):
        # Fresh weights under the name of the converted ones would be wrong numbers without a word.
        hint = "convert again without --no-weights, or import the package and build the backbone from its config"
        raise fail("no-weights", "the package was written without weights", location=str(preset), hint=hint)
    import_package(folder)
    try:
        return load_preset(folder)
    except Exception as error:  # KerasHub has no closed list of errors
        message = f"the model cannot be loaded: {type(error).__name__}: {error}"
        raise fail("package", message, location=str(folder)) from error


@contextmanager
def twin_worker() -> Iterator[TwinWorker]:
    """What compiles the twin; inside the block children are forks of a process that imports from now on.

    So it imports beside this process, where torch, transformers and keras come in later.
    """
    with forked_children(), TwinWorker() as twin:
        yield twin


@contextmanager
def destination(output: str | Path | None, overwrite: bool) -> Iterator[Path]:
    """The folder to build the package in: the staging folder of `output`, or one that is thrown away."""
    if output is not None:
        with staged(Path(output), overwrite) as staging:
            yield staging
        return
    with interruptible(), tempfile.TemporaryDirectory(prefix="hf2khc-package-") as folder:
        yield Path(folder)
