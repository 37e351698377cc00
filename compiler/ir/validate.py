"""Translation validation: a pass must not change what a program computes."""

from collections.abc import Callable, Mapping
from math import inf
from typing import Any

import numpy as np

from hf2khc.diagnostics import ConversionError, Diagnostic
from hf2khc.ir.graph import Node
from hf2khc.ir.interpret import Evaluator, interpret
from hf2khc.ir.text import format_node

# Code of the diagnostic for a pass that changes what a program computes.
MISCOMPILE = "miscompile"


def validate(
    before,
    after,
    inputs: Mapping[str, object],
    parameters: Callable[[str], object],
    evaluators: Mapping[str, Evaluator],
    tolerance: float = 1e-10,
    name: str = "a pass",
    env: Mapping[str, object] | None = None,
    outputs: tuple[tuple | None, tuple | None] = (None, None),
) -> float:
    """The largest error of `after` against `before` over their outputs.

    Errors are relative to the largest magnitude of the output. Outputs of integers and booleans must be equal, NaN and
    infinities must stand in the same places.

    Args:
        before, after: the `Program` that a pass took and the one it gave.
        inputs, parameters, evaluators, env: as for `interpret`; one input for both programs.
        name: of the pass, for the error.
        outputs: of `before` and `after` on these inputs, where they are known already.

    Raises:
        ConversionError: `miscompile`, with the output and the first value of the same name that differs.
    """
    first, second = (
        interpret(program, inputs, parameters, evaluators, env=env) if known is None else known
        for program, known in zip((before, after), outputs, strict=True)
    )
    if len(first) != len(second):
        raise ConversionError(Diagnostic(MISCOMPILE, f"{name} made {len(second)} outputs of {len(first)}"))
    errors = [relative_error(found, expected) for expected, found in zip(first, second, strict=True)]
    if all(error <= tolerance for error in errors):
        return max(errors, default=0.0)
    names = before.outputs or before.main.outputs
    wrong = ", ".join(f"{n} by {e:.3g}" for n, e in zip(names, errors, strict=True) if not e <= tolerance)
    location, excerpt = _first_difference(before, after, inputs, parameters, evaluators, tolerance, env)
    message = f"{name} changed the output {wrong} (relative; at most {tolerance:g})"
    raise ConversionError(Diagnostic(MISCOMPILE, message, location, excerpt))


def relative_error(found, expected) -> float:
    """The largest difference of two arrays, relative to the largest finite magnitude of `expected`.

    Infinite where shapes or kinds (boolean, integer, float) differ, where NaN or infinities do not coincide, where
    integers or booleans differ, and where something stands for nothing but zeros.
    """
    found, expected = _array(found), _array(expected)
    if found.shape != expected.shape or _kind(found) != _kind(expected):
        return inf
    if not expected.size:
        return 0.0
    if expected.dtype.kind not in "fc":
        return 0.0 if np.array_equal(found, expected) else inf
    finite = np.isfinite(expected)
    if not np.array_equal(found[~finite], expected[~finite], equal_nan=True) or not np.isfinite(found[finite]).all():
        return inf
    if not finite.any():
        return 0.0
    difference = float(np.abs(found[finite] - expected[finite]).max())
    magnitude = float(np.abs(expected[finite]).max())
    return difference / magnitude if magnitude else inf if difference else 0.0


def _first_difference(before, after, inputs, parameters, evaluators, tolerance, env) -> tuple[str, str]:
    """Place and text of the first value, in the order of `before`, that has a namesake in `after` and differs from it.

    Passes may keep a name for a value in another layout, so values of other shapes are passed over.
    """
    old: dict[tuple, tuple[Node, Any]] = {}
    new: dict[tuple, tuple[Node, Any]] = {}
    for program, seen in ((before, old), (after, new)):
        interpret(program, inputs, parameters, evaluators, _recorder(seen), env)
    for key, (node, expected) in old.items():
        if key not in new or isinstance(expected, tuple) or isinstance(new[key][1], tuple):
            continue
        other, found = new[key]
        if tuple(found.shape) != tuple(expected.shape):
            continue
        error = relative_error(found, expected)
        if not error <= tolerance:
            place = f"{node.loc.file}:{node.loc.line}  " if node.loc else ""
            text = f"first value of the same name to differ, by {error:.3g}:\n{format_node(node)}\n{format_node(other)}"
            return f"{place}({key[0] or 'root'})", text
    return "", "no value of the same name differs before the outputs"


def _recorder(seen: dict):
    """An observer that keeps values by instance path, name and how often the instance was called before."""
    counts: dict[tuple[str, str], int] = {}

    def observe(graph, path, node, value):
        if node.op == "input" and path:
            return
        key = (path, node.name)
        counts[key] = counts.get(key, -1) + 1
        seen[(*key, counts[key])] = (node, value)

    return observe


def _array(value) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.double() if "bfloat16" in str(value.dtype) else value
    array = np.asarray(value)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64) if array.dtype.kind in "fc" else array


def _kind(array: np.ndarray) -> str:
    return array.dtype.kind.replace("u", "i")
