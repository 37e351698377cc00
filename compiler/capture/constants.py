"""The tensors of a trace that are no weights: buffers, and what stands in the code of the model."""

import math
from collections.abc import Mapping

import numpy as np
import torch

from hf2khc.ir.frequencies import frequencies

# Decimals that tell a number of float32 from the next one.
_DIGITS = 6


def constant(tensor: torch.Tensor) -> np.ndarray:
    """The numbers of a constant; a single one, and frequencies of rotary embeddings, as their formula gives them.

    torch rounded those to float32, the IR does not.
    """
    value = _array(tensor)
    if value.ndim == 0 and value.dtype == np.float32:
        return np.asarray(_unrounded(value))
    found = frequencies(value)
    return value if found is None else found.table()


def _unrounded(value: np.ndarray) -> float:
    """The decimal, the root of a whole number or one over it that a number of float32 is, or else the number."""
    number = float(value)
    candidates = [float(f"{number:.{_DIGITS}g}")]
    if number > 0 and math.isfinite(number):
        candidates += [math.sqrt(round(number**2)), 1 / math.sqrt(max(1, round(number**-2)))]
    return next((found for found in candidates if np.float32(found) == value), number)


def first_names(exported: torch.export.ExportedProgram, model: torch.nn.Module) -> dict[str, str]:
    """The first name of each tensor that has several, by all of them: tied weights, equal constants of the code."""
    first: dict[int, str] = {}
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    tied = {name: first.setdefault(id(tensor), name) for name, tensor in named}
    return {**tied, **_first_of_equal(_lifted(exported, model))}


def _array(tensor: torch.Tensor) -> np.ndarray:
    """The numbers of a constant; those of bfloat16, which NumPy lacks, are numbers of float32, too."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().cpu().numpy()


def _lifted(exported: torch.export.ExportedProgram, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The constants that stand in the code of the model: no buffers."""
    buffers = dict(model.named_buffers(remove_duplicate=False))
    constants = exported.constants.items()
    return {name: value for name, value in constants if isinstance(value, torch.Tensor) and name not in buffers}


def _first_of_equal(constants: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """The first name of each constant: every layer that writes `x[:, [0, 2]]` has a list of its own."""
    first: dict[object, str] = {}
    return {
        name: first.setdefault((value.dtype, tuple(value.shape), _array(value).tobytes()), name)
        for name, value in constants.items()
    }
