"""Inputs that transformers computes ahead of a trace: places and bounds of patches, from the grids of a batch.

A model finds them from the values of other inputs, with loops that cannot be traced. It takes them as arguments as
well, and so does the package.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from unittest import mock

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.exporters import utils

from hf2khc.capture.input_types import Example, Input

GEOMETRY = ("grid_thw", "target_sizes", "feature_lens")
DTYPES = {torch.int64: "int64", torch.int32: "int32", torch.float32: "float32", torch.bool: "bool"}


def prepared_inputs(
    model: PreTrainedModel, spec: tuple[Input, ...], samples: Mapping[str, torch.Tensor], sizes: Mapping[str, int]
) -> Iterator[Input]:
    """The inputs that transformers would add to a spec, with the values that follow from the samples.

    Args:
        model: on any device; only its config and its attributes count.
        spec: what the model is called with.
        samples: of these inputs.
        sizes: of the symbols, no two alike: what has the size of a symbol is of that size.
    """
    known = {entry.name for entry in spec}
    symbols = {size: symbol for symbol, size in sizes.items()}
    for name, value in _added(model, samples).items():
        if name not in known and value.dtype in DTYPES:
            shape = tuple(symbols.get(size, size) for size in value.shape)
            yield Input(name, DTYPES[value.dtype], shape, ("given", value.numpy()))


def completed(model: PreTrainedModel, spec: tuple[Input, ...], example: Example) -> Example:
    """An example with those inputs of a spec that transformers computes from the others.

    Args:
        model: on any device; only its config and its attributes count.
        spec: what the model is captured with.
        example: what a user gave; an input of which nothing is computed stays out.
    """
    missing = {entry.name: entry.dtype for entry in spec if entry.name not in example}
    if not missing:
        return example
    samples = {name: torch.from_numpy(np.array(array)) for name, array in example.items()}
    added = _added(model, samples)
    return {**example, **{n: added[n].numpy().astype(dtype) for n, dtype in missing.items() if n in added}}


def _added(model: PreTrainedModel, samples: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors that transformers computes from samples, with the samples."""
    inputs = dict(samples)
    if not any(name.endswith(GEOMETRY) for name in samples):  # a text alone has its places in order
        return inputs
    try:
        utils.precompute_export_inputs(model, inputs)
    except Exception:  # what it does not take the trace may still do
        return {}
    return {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}


@contextmanager
def nothing_added() -> Iterator[None]:
    """Within the block transformers' exporter adds no inputs: those that a model needs stand in its spec."""
    with mock.patch.object(utils, "precompute_export_inputs", lambda model, inputs: None):
        yield
