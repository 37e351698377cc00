"""The input sets of a proof."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Inputs = dict[str, np.ndarray]
Sampler = Callable[[Mapping[str, int], int, str], Inputs]
BATCH = 3
_LENGTHS = (7, 12, 5, 9, 4, 15, 3, 2)
_COMMON = 16


def choose_sizes(
    traced: Mapping[str, int], limits: Mapping[str, int] | None = None, smallest: Mapping[str, int] | None = None
) -> tuple[dict[str, int], dict[str, int]]:
    """Two bindings of the symbols, both other than the traced one in every symbol that can be.

    Args:
        traced: the sizes that the model was traced at; `batch` is one of the symbols.
        limits: the largest value a symbol may have, such as the number of positions.
        smallest: the smallest value a symbol may have, 2 if it is not among them.

    Returns:
        Bindings with a batch of 3, whose other symbols take two different values, which also differ between symbols
        where the limits allow.
    """
    first, second = {"batch": BATCH}, {"batch": BATCH}
    for i, (symbol, size) in enumerate(s for s in traced.items() if s[0] != "batch"):
        least = (smallest or {}).get(symbol, 2)
        # What is traced with thousands of samples changes little with one more.
        unit, shift = max(1, size // _COMMON), max(0, least - min(_LENGTHS))
        lengths = [n * unit + shift + i for n in _LENGTHS]
        limit = (limits or {}).get(symbol, max(lengths))
        free = [n for n in lengths if n != size and least <= n <= limit] or [size]
        first[symbol], second[symbol] = free[0], free[min(1, len(free) - 1)]
    return first, second


def build_cases(
    sample: Sampler, sizes: Sequence[Mapping[str, int]], *, masked: bool, seed: int = 0
) -> dict[str, Inputs]:
    """Named input sets: no padding at all sizes, right and left padding where the model takes a mask.

    Args:
        sample: `sample(sizes, seed, padding)` with padding `none`, `right` or `left`; gives arrays by transformers'
            keyword arguments.
        sizes: bindings of the symbols.
        masked: whether the model takes a mask.
        seed: of the random inputs.
    """
    cases = {}
    for i, binding in enumerate(sizes):
        length = " ".join(f"{symbol}={size}" for symbol, size in binding.items())
        for padding in ("none", "right", "left") if masked else ("none",):
            cases[f"{padding} padding, {length}"] = sample(binding, seed + i, padding)
    return cases


def save_arrays(path: Path, groups: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Write named arrays in named groups to an npz; the names are kept in it, so they may hold any character."""
    pairs = [(group, name, array) for group, found in groups.items() for name, array in found.items()]
    names = np.array([[group, name] for group, name, _ in pairs], dtype=str).reshape(len(pairs), 2)
    arrays: dict[str, Any] = {f"a{i}": array for i, (_, _, array) in enumerate(pairs)}
    np.savez(path, groups=np.array(list(groups), dtype=str), names=names, **arrays)


def load_arrays(path: Path) -> dict[str, Inputs]:
    """What `save_arrays` wrote."""
    with np.load(path) as data:
        groups: dict[str, Inputs] = {str(group): {} for group in data["groups"]}
        for i, (group, name) in enumerate(data["names"]):
            groups[str(group)][str(name)] = data[f"a{i}"]
    return groups
