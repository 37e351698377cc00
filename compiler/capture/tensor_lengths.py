"""Sizes that a model's own code computes in a way that hides them from torch: `len` of a tensor, `torch.div` of two.

Python makes a number of the first, and with it a free size is one no longer; the second is a tensor, whose value no
trace knows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from hf2khc.capture.replaced_builtins import replaced_builtins


@contextmanager
def free_lengths(model: PreTrainedModel) -> Iterator[None]:
    """Within the block `len` of a tensor is its first size as it is traced, and the quotient of two sizes a size."""
    with _Quotients(), replaced_builtins(model, len=_length):
        yield


def _length(value: Any) -> Any:
    return value.shape[0] if isinstance(value, torch.Tensor) and value.dim() else len(value)


class _Quotients(TorchFunctionMode):
    """`torch.div` of two sizes that rounds gives a size: none is negative, so both ways to round are the same."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        sizes = len(args) == 2 and all(isinstance(value, int | torch.SymInt) for value in args)
        if func is torch.div and sizes and kwargs.get("rounding_mode") in ("trunc", "floor"):
            return args[0] // args[1]
        return func(*args, **kwargs)
