"""The data of a check of gradients."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hf2khc.check.cases import Inputs, save_arrays
from hf2khc.check.compare import FLOOR
from hf2khc.check.proof import Source
from hf2khc.process import run_job

BOUND = FLOOR


@dataclass(frozen=True)
class VariableSource:
    """What fills one Keras variable, in terms of the transformers model in memory.

    Args:
        keras: path of the variable.
        sources: paths of parameters in the transformers model.
        transform: expression over them, see the weight map.
    """

    keras: str
    sources: tuple[str, ...]
    transform: str


@dataclass(frozen=True)
class Gradients:
    """How far the package's gradients are from transformers', both in float64.

    Args:
        parameters: number of parameters of the transformers model that were compared, tied ones once.
        elements: number of their elements.
        largest: the largest error of any parameter, relative to the largest magnitude of its gradient.
        worst: the parameter it belongs to.
        bound: what `largest` may be.
        config: what was compared: the package itself, or its classes at another config.
        problems: one sentence per parameter that is wrong.
        left_out: what could not be compared, because torch and Keras train it differently.
        holds: whether all are right.
    """

    parameters: int
    elements: int
    largest: float
    worst: str
    bound: float = BOUND
    config: str = ""
    problems: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    holds: bool = False


def compare_gradients(
    directory: Path,
    source: Source,
    variables: Sequence[VariableSource],
    case: Inputs,
    signature: Mapping[str, Any],
    scratch: Path,
) -> Gradients:
    """Compare the gradient of every parameter, in a process of its own.

    Args:
        directory: the package, with its weights.
        source: the transformers model.
        variables: what fills each variable; those that no parameter fills are left out.
        case: transformers' keyword arguments.
        signature: the content of `signature.json`.
        scratch: a folder for the inputs.

    Raises:
        ConversionError: when one of the two models does not run.
    """
    inputs = scratch / "gradients.npz"
    save_arrays(inputs, {"case": case})
    job = {
        "directory": str(directory), "source": asdict(source), "variables": [asdict(v) for v in variables],
        "case": str(inputs), "signature": dict(signature),
    }  # fmt: skip
    found = run_job("hf2khc.check.gradients", job, {"KERAS_BACKEND": "torch"})
    return Gradients(**{**found, "problems": tuple(found["problems"]), "left_out": tuple(found["left_out"])})
