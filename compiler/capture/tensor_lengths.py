"""`len` of a tensor in a model's own code: Python makes a number of it, and with it a free size is one no longer."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from transformers import PreTrainedModel


@contextmanager
def free_lengths(model: PreTrainedModel) -> Iterator[None]:
    """Within the block `len` of a tensor is the size of its first axis as it is traced, where the model asks for it.

    Args:
        model: the files of its modules' classes, those of torch apart, are meant.
    """
    names = {type(module).__module__ for module in model.modules()}
    with ExitStack() as stack:
        for name in sorted(names):
            if name.partition(".")[0] != "torch" and name in sys.modules:
                stack.enter_context(mock.patch.object(sys.modules[name], "len", _length, create=True))
        yield


def _length(value: Any) -> Any:
    return value.shape[0] if isinstance(value, torch.Tensor) and value.dim() else len(value)
