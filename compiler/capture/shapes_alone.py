"""Forward passes in shapes alone, of which nothing is left."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel, pytorch_utils
from transformers.integrations import moe

from hf2khc.capture.build import materialise, quiet


@contextmanager
def shapes_alone() -> Iterator[FakeTensorMode]:
    """Within the block operations compute shapes and no numbers.

    transformers keeps what some methods return for the whole process, by their arguments: a shape without numbers must
    not be found there by a model that really runs. While it is compiled it keeps nothing. Nor does it take the kernel
    for mixtures of experts then, whose shapes torch knows in bfloat16 alone.
    """
    with (
        mock.patch.object(pytorch_utils, "is_torchdynamo_compiling", lambda: True),
        mock.patch.object(moe, "is_torchdynamo_compiling", lambda: True),
        FakeTensorMode(allow_non_fake_inputs=True) as mode,
    ):
        yield mode


class Operations(TorchDispatchMode):
    """The operations that are run within it, in their order: `names`."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def run_in_shapes(model: PreTrainedModel, inputs: Mapping[str, np.ndarray]) -> list[str]:
    """The operations of a forward pass in shapes alone, up to a branch on data.

    Args:
        model: on the meta device.
        inputs: arrays by argument name.

    Raises:
        Exception: what the model raises.
    """
    materialise(model)
    branches = suppress(DataDependentOutputException, DynamicOutputShapeException)
    with quiet(), torch.no_grad(), shapes_alone() as mode, Operations() as done, branches:
        model(**{name: mode.from_tensor(torch.from_numpy(array)) for name, array in inputs.items()})
    return done.names
