"""Loops over time in a model's own code: where a longer input takes more operations, no one trace fits both.

torch finds that out too, but after it has traced the loop with a free length, which takes minutes where there are
thousands of operations.
"""

import builtins
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

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


@dataclass(frozen=True)
class TimeLoop:
    """A loop over a symbol.

    Args:
        reason: why the symbol cannot be free.
        is_counted: whether the model counts up to a number, with Python's `range`, that grows with the symbol.
    """

    reason: str
    is_counted: bool


def looped_lengths(model: PreTrainedModel, spec: tuple[Input, ...], sizes: Mapping[str, int]) -> dict[str, TimeLoop]:
    """The symbols over which the model loops.

    Args:
        model: on the CPU.
        spec: its inputs.
        sizes: of the symbols in the trace.
    """
    short = _run(model, spec, sizes)
    if short.operations < MANY:
        return {}
    found = {}
    for symbol, size in sizes.items():
        if symbol != "batch":
            runs = [short, *(_run(model, spec, {**sizes, symbol: size * times}) for times in LONGER)]
            counts = [run.operations for run in runs]
            # Once more operations may be a branch that is taken from some length on.
            if counts[0] < counts[1] < counts[2]:
                reason = f"the model loops over it: the longer it is, the more operations there are ({counts})"
                found[symbol] = TimeLoop(reason, runs[0].ranges != runs[1].ranges)
    return found


@dataclass(frozen=True)
class _Run:
    """How many operations a forward pass takes, and what the model's own code counts up to with `range`."""

    operations: int
    ranges: list[tuple]


def _run(model: PreTrainedModel, spec: tuple[Input, ...], sizes: Mapping[str, int]) -> _Run:
    """A forward pass in shapes alone, or as much of it as there is before it needs a number."""
    inputs = sample_inputs(spec, dict(sizes))
    done, ranges = Operations(), []

    def counted(*bounds):
        ranges.append(bounds)
        return builtins.range(*bounds)

    # A model may branch on data, or take no such size.
    with (
        state_kept(model), replaced_builtins(model, range=counted), suppress(Exception), quiet(), torch.no_grad(),
        shapes_alone() as mode, done,
    ):  # fmt: skip
        model(**{name: mode.from_tensor(torch.from_numpy(array)) for name, array in inputs.items()})
    return _Run(len(done.names), ranges)
