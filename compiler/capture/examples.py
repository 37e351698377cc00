"""Inputs that the user gives: what of them is free, and what another sample of them would be.

A model may take inputs that nothing in its config describes: grids of patches, prompts, states of another model. An
example of them shows names, dtypes and ranks. What it does not show stays as it is given.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hf2khc.capture.input_types import Example, Input
from hf2khc.diagnostics import fail

DTYPES = ("int64", "int32", "float32", "bool")


def checked(examples: Sequence[Mapping[str, Any]]) -> tuple[Example, ...]:
    """Examples as numpy arrays, floats in float32.

    Args:
        examples: arrays or tensors by argument name; the same names in each, of the same rank.

    Raises:
        ConversionError: `inputs-unfit`, for examples of different names or ranks, or of a dtype that no input has.
    """
    found = tuple({name: _array(name, value) for name, value in example.items()} for example in examples)
    for example in found[1:]:
        if {n: a.ndim for n, a in example.items()} != {n: a.ndim for n, a in found[0].items()}:
            raise fail("inputs-unfit", "the examples differ in the names or ranks of their inputs")
    return found


def _array(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
    if str(array.dtype) not in DTYPES:
        hint = f"an input is one of {', '.join(DTYPES)}"
        raise fail("inputs-unfit", f"{name} has the dtype {array.dtype}", location=f"inputs[{name!r}]", hint=hint)
    return array


def spec_of(examples: Sequence[Example], known: Mapping[str, Input], special: frozenset[int]) -> tuple[Input, ...]:
    """The inputs that examples show.

    An input that is known from the config is taken from there where the example agrees with it; then it is drawn at
    random at every size. Of another one the batch is free where every input has one, and so is an axis in which two
    examples differ; its numbers are drawn at random where they are floats, and are those of the example where they are
    integers, which may be places or sizes. An axis as long as such integers stays as it is, too.

    Args:
        examples: by argument name.
        known: the inputs that are known from the config, by name.
        special: token ids that mark the place of something; ids among which there is one are not drawn at random.
    """
    first = examples[0]
    batch = _batch(first)
    loose = batch is not None and all(array.ndim and array.shape[0] == batch for array in first.values())
    spec = []
    for name in first:
        arrays = [example[name] for example in examples]
        entry = known.get(name)
        if entry is not None and loose and all(_fits(entry, a, special) for a in arrays):
            spec.append(entry)
        else:
            spec.append(_shown(name, arrays, loose))
    if not _consistent(spec, first):
        return tuple(_shown(n, [a], loose) for n, a in first.items())
    return tuple(_shown(e.name, [first[e.name]], loose) if _is_tied(e, spec, first) else e for e in spec)


def _is_tied(entry: Input, spec: Sequence[Input], example: Example) -> bool:
    """Whether an axis that could be free is as long as one of given integers: they may be places on it."""
    held = {size for e in spec if e.fill[0] == "given" and e.dtype != "float32" for size in e.shape[1:]}
    pairs = zip(entry.shape, example[entry.name].shape, strict=True)
    return any(isinstance(symbol, str) and symbol != "batch" and size in held for symbol, size in pairs)


def _batch(example: Example) -> int | None:
    sizes = Counter(array.shape[0] for array in example.values() if array.ndim)
    return sizes.most_common(1)[0][0] if sizes else None


def _fits(entry: Input, array: np.ndarray, special: frozenset[int]) -> bool:
    if array.ndim != len(entry.shape) or array.dtype != entry.dtype:
        return False
    if any(isinstance(size, int) and size != found for size, found in zip(entry.shape, array.shape, strict=True)):
        return False
    # Ids that mark the places of images in a text have to stay where they are.
    return entry.fill[0] != "randint" or special.isdisjoint(np.unique(array).tolist())


def _shown(name: str, arrays: Sequence[np.ndarray], loose: bool) -> Input:
    first = arrays[0]
    free = {axis for axis in range(first.ndim) if len({array.shape[axis] for array in arrays}) > 1}
    shape: list[int | str] = [f"{name}_{axis}" if axis in free else size for axis, size in enumerate(first.shape)]
    if loose:
        shape[0] = "batch"
    mask = name.endswith("mask") and first.ndim == 2 and set(np.unique(first)) <= {0, 1}
    if mask and first.all():
        return Input(name, str(first.dtype), tuple(shape), ("ones",), "mask")
    return Input(name, str(first.dtype), tuple(shape), _fill(first))


def _fill(array: np.ndarray) -> tuple[Any, ...]:
    """Random floats of the example's mean and spread, and its own integers; constants stay constant."""
    if array.dtype.kind != "f" or not array.size or array.min() == array.max():
        return ("given", array)
    if array.min() >= 0:  # such as times or shares: what a model takes the root or the logarithm of
        return ("uniform", float(array.min()), float(array.max()))
    return ("normal", float(array.mean()), float(array.std()))


def _consistent(spec: Sequence[Input], example: Example) -> bool:
    """Whether every symbol has one size in the example."""
    sizes: dict[str, int] = {}
    pairs = [pair for entry in spec for pair in zip(entry.shape, example[entry.name].shape, strict=True)]
    return all(not isinstance(symbol, str) or sizes.setdefault(symbol, size) == size for symbol, size in pairs)


def at_size(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers of an example at another size: repeated, or cut, along each axis."""
    for axis, size in enumerate(shape):
        array = np.take(array, np.arange(size) % array.shape[axis], axis=axis)
    return np.ascontiguousarray(array)


def sizes_of(spec: Sequence[Input], example: Example) -> dict[str, int]:
    """The size of each symbol in an example."""
    shown = [entry for entry in spec if entry.name in example]
    pairs = [pair for entry in shown for pair in zip(entry.shape, example[entry.name].shape, strict=True)]
    return {symbol: size for symbol, size in pairs if isinstance(symbol, str)}
