"""Sizes that a model's own code computes in a way that hides them from torch: `len` of a tensor, `torch.div` of two.

Python makes a number of the first, and with it a free size is one no longer; the second is a tensor, whose value no
trace knows.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel


@contextmanager
def free_lengths(model: PreTrainedModel) -> Iterator[None]:
    """Within the block `len` of a tensor is its first size as it is traced, and the quotient of two sizes a size.

    Args:
        model: the files of its modules' classes, those of torch apart, are meant.
    """
    names = {type(module).__module__ for module in model.modules()}
    with ExitStack() as stack:
        stack.enter_context(_Quotients())
        for name in sorted(names):
            if name.partition(".")[0] != "torch" and name in sys.modules:
                stack.enter_context(mock.patch.object(sys.modules[name], "len", _length, create=True))
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
