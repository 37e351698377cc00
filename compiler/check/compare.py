"""The rule of a proof. There is no tolerance to choose: transformers' own float32 error sets the bound."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hf2khc.check.proof import OutputError
from hf2khc.check.signature import compared_rows, in_package_order
from hf2khc.diagnostics import Diagnostic

FACTOR = 4.0
FLOOR = 2e-6
Inputs = Mapping[str, np.ndarray]


def compare(
    signature: Mapping[str, Any], case: str, backend: str, inputs: Inputs, ours: Inputs, theirs: Inputs, exact: Inputs
) -> tuple[OutputError, ...]:
    """Every output of one case on one backend.

    Args:
        signature: the content of `signature.json`.
        case, backend: names for the result.
        inputs: transformers' keyword arguments; masks among them choose the rows.
        ours: the package's outputs, in its own axis order, by output key.
        theirs: transformers' float32 outputs by output key.
        exact: transformers' float64 outputs by output key.
    """
    found = []
    for key, entry in signature["outputs"].items():
        row = OutputError(key, case, backend, None, None, 0.0, 0.0, 0)
        if key not in exact:
            found.append(replace(row, problem="transformers returns no such output"))
        elif key not in ours:
            found.append(replace(row, problem="the package returns no such output"))
        else:
            reference, single = in_package_order(entry, exact[key]), in_package_order(entry, theirs[key])
            found.append(_compare_one(row, signature, entry, inputs, ours[key], single, reference))
    return tuple(found)


def _compare_one(
    row: OutputError, signature: Mapping[str, Any], entry: Mapping[str, Any], inputs: Inputs, ours: np.ndarray,
    theirs: np.ndarray, exact: np.ndarray,
) -> OutputError:  # fmt: skip
    if ours.shape != exact.shape:
        return replace(row, problem=f"shape {ours.shape}, transformers has {exact.shape}")
    if _kind(ours) != _kind(exact):
        return replace(row, problem=f"dtype {ours.dtype}, transformers has {theirs.dtype}")
    chosen = compared_rows(signature, entry, dict(inputs), exact.shape)
    row = replace(row, compared=int(chosen.sum()), apart=int((~chosen).sum()))
    if not row.compared:
        return replace(row, problem="no element to compare")
    if _kind(exact) == "float":
        return _compare_floats(row, chosen, ours, theirs, exact)
    unequal = float((ours != exact)[chosen].mean())
    return replace(row, ours=unequal, theirs=float((theirs != exact)[chosen].mean()), holds=unequal == 0)


def _compare_floats(
    row: OutputError, chosen: np.ndarray, ours: np.ndarray, theirs: np.ndarray, exact: np.ndarray
) -> OutputError:
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    finite = np.isfinite(exact)
    wrong = chosen & ~np.where(finite, np.isfinite(ours), _same(ours, exact))
    magnitude = float(np.max(np.abs(exact), initial=0.0, where=chosen & finite))
    row = replace(row, magnitude=magnitude)
    if wrong.any():
        return replace(row, problem=f"{int(wrong.sum())} values are not finite where transformers' are, or the reverse")
    used = chosen & finite
    error, their_error = _error(ours, exact, used, magnitude), _error(theirs, exact, used, magnitude)
    bound = max(FACTOR * their_error, FLOOR)
    apart = ~chosen & finite
    return replace(
        row,
        ours=error,
        theirs=their_error,
        bound=bound,
        ours_apart=_error(ours, exact, apart, magnitude) if np.isfinite(ours[apart]).all() and apart.any() else None,
        theirs_apart=_error(theirs, exact, apart, magnitude) if apart.any() else None,
        holds=bool(error <= bound),
    )


def _same(ours: np.ndarray, exact: np.ndarray) -> np.ndarray:
    return (ours == exact) | (np.isnan(ours) & np.isnan(exact))


def _error(values: np.ndarray, exact: np.ndarray, where: np.ndarray, magnitude: float) -> float:
    """Largest error relative to the magnitude, absolute where that is zero. NaN counts as infinite."""
    with np.errstate(invalid="ignore"):
        largest = float(np.max(np.abs(values - exact), initial=0.0, where=where))
    return float("inf") if np.isnan(largest) else largest / magnitude if magnitude else largest


def _kind(array: np.ndarray) -> str:
    return "float" if array.dtype.kind in "fV" else "bool" if array.dtype.kind == "b" else "int"


def explain(row: OutputError) -> Diagnostic:
    """The diagnostic of an output that does not hold."""
    place = f"{row.backend}, {row.case}"
    if row.problem:
        return Diagnostic("parity", f"{row.output}: {row.problem}", place)
    message = f"{row.output} is off by {row.ours:.2e} of its largest magnitude; at most {row.bound:.2e} is allowed"
    return Diagnostic("parity", message, place, f"transformers' own float32 error is {row.theirs:.2e}")
