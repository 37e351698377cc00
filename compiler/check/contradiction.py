"""Whether it is transformers that gives one row two results: no package could compute both."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hf2khc.check.cases import Inputs
from hf2khc.check.compare import FLOOR
from hf2khc.check.signature import in_package_order
from hf2khc.diagnostics import Diagnostic

CONTRADICTION = "reference-contradiction"
MESSAGE = "transformers gives the same row another result beside rows with padding"
HINT = "the package computes what was traced, at any padding; which of the two is right, its authors have to say"


def contradiction(
    signature: Mapping[str, Any], cases: Mapping[str, Inputs], ours: Mapping[str, Inputs], exact: Mapping[str, Inputs]
) -> Diagnostic | None:
    """Why a package cannot agree: a row that two cases share has one result in the package, and two in transformers.

    An attention that is causal by its mask alone, say, whose mask transformers leaves out where nothing is padded.

    Args:
        signature: the content of `signature.json`.
        cases: transformers' keyword arguments by case.
        ours: the package's outputs by case, in its own axis order.
        exact: transformers' float64 outputs by case.
    """
    there = {case: inputs for case, inputs in cases.items() if case in ours}
    for first, second in itertools.combinations(there, 2):
        for key, row in itertools.product(signature["outputs"], _shared_rows(cases[first], cases[second])):
            entry = signature["outputs"][key]
            if all(key in found[case] for found in (exact, ours) for case in (first, second)):
                theirs = [_row(in_package_order(entry, exact[case][key]), row) for case in (first, second)]
                if _differ(*theirs) and not _differ(*(_row(ours[case][key], row) for case in (first, second))):
                    where = f"{key}, row {row} of '{first}' and of '{second}'"
                    return Diagnostic(CONTRADICTION, MESSAGE, where, hint=HINT)
    return None


def _shared_rows(one: Inputs, other: Inputs) -> Iterator[int]:
    """Numbers of the rows that are the same in two cases, in all inputs."""
    if one.keys() != other.keys() or any(one[name].shape != other[name].shape for name in one):
        return
    for row in range(min((array.shape[0] if array.ndim else 0 for array in one.values()), default=0)):
        if all(np.array_equal(one[name][row], other[name][row]) for name in one):
            yield row


def _row(array: np.ndarray, row: int) -> np.ndarray | None:
    return array[row].astype(np.float64) if array.ndim and row < array.shape[0] else None


def _differ(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None or one.shape != other.shape:
        return False
    return bool(np.max(np.abs(one - other), initial=0) > FLOOR * np.max(np.abs(one), initial=1))
