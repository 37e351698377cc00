"""Weights as a checkpoint has them, where transformers changes some once they are loaded.

It initialises what a checkpoint lacks, and marks what it has to be left alone. A part of a marked weight bears no mark:
Funnel's row for padding is 0 whatever was trained.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from transformers import initialization

_MARK = "_is_hf_initialized"


@contextmanager
def as_stored() -> Iterator[list[torch.Tensor]]:
    """Within it, parts of what a checkpoint has are not initialised again; gives the weights that would have been."""
    spared: list[torch.Tensor] = []
    functions = initialization.TORCH_INIT_FUNCTIONS
    sparing = {name: partial(_sparing, function, spared) for name, function in functions.items()}
    with mock.patch.dict(functions, sparing):
        yield spared


def _sparing(function: Any, spared: list[torch.Tensor], tensor: torch.Tensor, *args: Any, **keywords: Any) -> Any:
    whole = tensor._base
    if whole is None or not getattr(whole, _MARK, False):
        return function(tensor, *args, **keywords)
    spared.append(whole)
    return tensor
