"""What the functions of a weight transform mean: on values, on shapes alone, and on element numbers.

The parameters are named as in `keras.ops`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

Axes = int | Sequence[int] | None
Table = dict[str, Callable[..., Any]]


def as_dtype(name: str) -> np.dtype:
    """numpy's dtype for a Keras dtype name, bfloat16 and the float8 kinds included."""
    return np.dtype(getattr(ml_dtypes, name, name))


def transpose(x: np.ndarray, axes: Sequence[int] | None = None) -> np.ndarray:
    return np.transpose(x, axes)


def reshape(x: np.ndarray, newshape: int | Sequence[int]) -> np.ndarray:
    return np.reshape(x, newshape)


def slice_(inputs: np.ndarray, start_indices: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    stops = [start + size for start, size in zip(start_indices, shape, strict=True)]
    if len(stops) != inputs.ndim or any(stop > size for stop, size in zip(stops, inputs.shape, strict=True)):
        raise ValueError(f"slice from {tuple(start_indices)} of {tuple(shape)} leaves the array {inputs.shape}")
    return inputs[tuple(slice(start, stop) for start, stop in zip(start_indices, stops, strict=True))]


def split(x: np.ndarray, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[np.ndarray]:
    return np.split(x, indices_or_sections, axis=axis)


def squeeze(x: np.ndarray, axis: Axes = None) -> np.ndarray:
    return np.squeeze(x, axis=axis if axis is None or isinstance(axis, int) else tuple(axis))


def expand_dims(x: np.ndarray, axis: int | Sequence[int]) -> np.ndarray:
    return np.expand_dims(x, axis)


def flip(x: np.ndarray, axis: Axes = None) -> np.ndarray:
    return np.flip(x, axis if axis is None or isinstance(axis, int) else tuple(axis))


def broadcast_to(x: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    return np.broadcast_to(x, tuple(shape))


def take(x: np.ndarray, indices: Sequence[int], axis: int | None = None) -> np.ndarray:
    return np.take(x, indices, axis=axis)


def repeat(x: np.ndarray, repeats: int, axis: int | None = None) -> np.ndarray:
    return np.repeat(x, repeats, axis=axis)


def concatenate(xs: Sequence[np.ndarray], axis: int = 0) -> np.ndarray:
    return np.concatenate(xs, axis=axis)


def stack(x: Sequence[np.ndarray], axis: int = 0) -> np.ndarray:
    return np.stack(x, axis=axis)


def cast(x: np.ndarray, dtype: str) -> np.ndarray:
    return x.astype(as_dtype(dtype))


def _total(function: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(x: np.ndarray, axis: Axes = None, keepdims: bool = False) -> np.ndarray:
        return np.asarray(function(x, axis=tuple(axis) if isinstance(axis, list) else axis, keepdims=keepdims))

    return reduce


def _view(shape: Sequence[int]) -> np.ndarray:
    """An array of a shape that occupies one byte."""
    return np.broadcast_to(np.zeros((), np.int8), tuple(shape))


def _shape_concatenate(xs: Sequence[np.ndarray], axis: int = 0) -> np.ndarray:
    rests = {tuple(np.delete(x.shape, axis)) for x in xs}
    if len(rests) != 1:
        raise ValueError(f"cannot concatenate {[x.shape for x in xs]} along axis {axis}")
    shape = list(xs[0].shape)
    shape[axis] = sum(x.shape[axis] for x in xs)
    return _view(shape)


def _shape_stack(x: Sequence[np.ndarray], axis: int = 0) -> np.ndarray:
    if len({item.shape for item in x}) != 1:
        raise ValueError(f"cannot stack {[item.shape for item in x]}")
    return _shape_concatenate([np.expand_dims(item, axis) for item in x], axis)


def _shape_reduce(x: np.ndarray, axis: Axes = None, keepdims: bool = False) -> np.ndarray:
    axes = range(x.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
    reduced = {a % x.ndim for a in axes}
    return _view([1 if i in reduced else d for i, d in enumerate(x.shape) if keepdims or i not in reduced])


def _shape_repeat(x: np.ndarray, repeats: int, axis: int | None = None) -> np.ndarray:
    if axis is None:
        return _view([x.size * repeats])
    return _view([d * repeats if i == axis % x.ndim else d for i, d in enumerate(x.shape)])


def _shape_take(x: np.ndarray, indices: Sequence[int], axis: int | None = None) -> np.ndarray:
    limit = x.size if axis is None else x.shape[axis]
    if np.max(indices) >= limit or np.min(indices) < -limit:
        raise ValueError(f"take of element {int(np.max(indices))} from {limit}")
    if axis is None:
        return _view(np.shape(indices))
    axis %= x.ndim
    return _view((*x.shape[:axis], *np.shape(indices), *x.shape[axis + 1 :]))


def _shape_binary(x1: Any, x2: Any) -> np.ndarray:
    return _view(np.broadcast_shapes(np.shape(x1), np.shape(x2)))


def _shape_unary(x: np.ndarray, *_: Any, **__: Any) -> np.ndarray:
    return _view(np.shape(x))


def _trace_binary(x1: Any, x2: Any) -> np.ndarray:
    """Element numbers survive arithmetic with a scalar constant, and nothing else."""
    arrays = [x for x in (x1, x2) if isinstance(x, np.ndarray)]
    if len(arrays) != 1 or not all(np.isscalar(x) for x in (x1, x2) if x is not arrays[0]):
        raise ValueError("arithmetic between arrays")
    return arrays[0]


def _trace_unary(x: np.ndarray, *_: Any, **__: Any) -> np.ndarray:
    return x


_MOVES: Table = {
    "transpose": transpose, "reshape": reshape, "slice": slice_, "split": split, "squeeze": squeeze,
    "expand_dims": expand_dims, "flip": flip, "broadcast_to": broadcast_to,
}  # fmt: skip
ELEMENTWISE: Table = {
    "negative": np.negative, "square": np.square, "sqrt": np.sqrt, "exp": np.exp, "reciprocal": lambda x: 1.0 / x,
    "rsqrt": lambda x: 1.0 / np.sqrt(x), "cast": cast, "abs": np.abs, "log": np.log, "tanh": np.tanh,
    "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)), "softplus": lambda x: np.logaddexp(0.0, x),
}  # fmt: skip
BINARY: Table = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.true_divide,
    "maximum": np.maximum, "minimum": np.minimum, "power": np.power,
}  # fmt: skip
REDUCE: Table = {"sum": _total(np.sum), "mean": _total(np.mean), "max": _total(np.max), "min": _total(np.min)}
_JOIN: Table = {"concatenate": concatenate, "stack": stack, "take": take, "repeat": repeat}

VALUES: Table = {**_MOVES, **ELEMENTWISE, **BINARY, **REDUCE, **_JOIN}
SHAPES: Table = {
    **_MOVES, **dict.fromkeys(ELEMENTWISE, _shape_unary), **dict.fromkeys(BINARY, _shape_binary),
    **dict.fromkeys(REDUCE, _shape_reduce), "concatenate": _shape_concatenate, "stack": _shape_stack,
    "take": _shape_take, "repeat": _shape_repeat,
}  # fmt: skip
INDEX_TRACE: Table = {
    **_MOVES, **_JOIN, **dict.fromkeys(ELEMENTWISE, _trace_unary), **dict.fromkeys(BINARY, _trace_binary),
}  # fmt: skip
