"""Loops over time in a model's own code: where a longer input takes more operations, no one trace fits both.

torch finds that out too, but after it has traced the loop with a free length, which takes minutes where there are
thousands of operations.
"""

import builtins
from collections.abc import Mapping
from contextlib import suppress

import torch
from transformers import PreTrainedModel

from hf2khc.capture.build import quiet
from hf2khc.capture.input_types import Input
from hf2khc.capture.inputs import sample_inputs
from hf2khc.capture.module_state import state_kept
from hf2khc.capture.replaced_builtins import replaced_builtins
from hf2khc.capture.shapes_alone import Operations, shapes_alone

MANY = 400  # operations below which a trace with a free length costs no more than to look for a loop
LONGER = (8, 16)


def looped_lengths(model: PreTrainedModel, spec: tuple[Input, ...], sizes: Mapping[str, int]) -> dict[str, str]:
    """The symbols over which the model loops, with the reason why they cannot be free.

    Args:
        model: on the CPU.
        spec: its inputs.
        sizes: of the symbols in the trace.
    """
    count = operations(model, spec, sizes)
    if count < MANY:
        return {}
    found = {}
    for symbol, size in sizes.items():
        if symbol != "batch":
            counts = [count, *(operations(model, spec, {**sizes, symbol: size * times}) for times in LONGER)]
            # Once more operations may be a branch that is taken from some length on.
            if counts[0] < counts[1] < counts[2]:
                found[symbol] = f"the model loops over it: the longer it is, the more operations there are ({counts})"
    return found


def counts_over(model: PreTrainedModel, spec: tuple[Input, ...], sizes: Mapping[str, int], symbol: str) -> bool:
    """Whether the model counts up to a number, with Python's `range`, that grows with a symbol."""
    counts: list[list[tuple]] = []
    for times in (1, LONGER[0]):
        counts.append([])

        def counted(*bounds, found=counts[-1]):
            found.append(bounds)
            return builtins.range(*bounds)

        with replaced_builtins(model, range=counted):
            operations(model, spec, {**sizes, symbol: sizes[symbol] * times})
    return counts[0] != counts[1]


def operations(model: PreTrainedModel, spec: tuple[Input, ...], sizes: Mapping[str, int]) -> int:
    """How many operations a forward pass in shapes alone takes, or gets through before it needs a number."""
    inputs = sample_inputs(spec, dict(sizes))
    done = Operations()
    # A model may branch on data, or take no such size.
    with state_kept(model), suppress(Exception), quiet(), torch.no_grad(), shapes_alone() as mode, done:
        model(**{name: mode.from_tensor(torch.from_numpy(array)) for name, array in inputs.items()})
    return len(done.names)
