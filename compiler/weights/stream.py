"""Filling a dataset from a checkpoint without holding more than a block where the transform allows it."""

import ast
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hf2khc.diagnostics import fail
from hf2khc.weights.checkpoint import Checkpoint
from hf2khc.weights.rows import Row
from hf2khc.weights.transform import call_name, evaluate, is_arithmetic, names_used, output_shape, parse, source_names
from hf2khc.weights.transform_ops import ELEMENTWISE, VALUES, as_dtype

BLOCK_BYTES = 64 << 20
_SCALAR = {ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "divide"}
Array = np.ndarray


@dataclass(frozen=True)
class Blocks:
    """A transform as a function of rows `start` to `stop` of its source.

    Args:
        axis: the axis of the result along which those rows lie.
        start, stop: the rows of the source that the result uses.
        shape: shape of the result.
        apply: the result's part for any run of rows.
    """

    axis: int
    start: int
    stop: int
    shape: tuple[int, ...]
    apply: Callable[[Array], Array]


@dataclass(frozen=True)
class Piece:
    """A part of a variable that comes from some of a row's tensors: `where` selects it in the dataset."""

    transform: str
    hf: tuple[str, ...]
    where: tuple[Any, ...]


def fill_dataset(dataset: Any, row: Row, checkpoint: Checkpoint, block_bytes: int = BLOCK_BYTES) -> None:
    """Write a row's value into an h5 dataset of the variable's shape and dtype.

    A concatenation or a stack is written part by part; a tensor larger than `block_bytes` whose transform keeps the
    rows apart (transposition, slice, elementwise) is read in blocks.
    """
    dtype = as_dtype(row.keras_dtype)
    for piece in pieces(row):
        shapes = [checkpoint.shape(name) for name in piece.hf]
        blocks = plan(piece.transform, shapes[0]) if len(piece.hf) == 1 else None
        if blocks is None or _bytes(blocks.shape, dtype) <= block_bytes:
            value = evaluate(piece.transform, [checkpoint.read(name) for name in piece.hf])
            dataset[piece.where] = _as(dtype, value)
            continue
        for where, value in _parts(piece, blocks, checkpoint, dtype, block_bytes):
            dataset[where] = value


def pieces(row: Row) -> tuple[Piece, ...]:
    """The parts of a top-level `concatenate` or `stack`, or the whole."""
    node = parse(row.transform)
    whole = (slice(None),) * len(row.keras_shape)
    joined = isinstance(node, ast.Call) and call_name(node) in ("concatenate", "stack")
    if not joined or not isinstance(node.args[0], ast.List | ast.Tuple):  # type: ignore[attr-defined]
        return (Piece(row.transform, row.hf, whole),)
    items = node.args[0].elts  # type: ignore[attr-defined]
    axis = _axis(node) % len(row.keras_shape)  # type: ignore[arg-type]
    found, start = [], 0
    for item in items:
        transform, hf, shapes = _restricted(item, row)
        size = 1 if call_name(node) == "stack" else output_shape(transform, shapes)[axis]  # type: ignore[arg-type]
        chosen = start if call_name(node) == "stack" else slice(start, start + size)  # type: ignore[arg-type]
        found.append(Piece(transform, hf, (*whole[:axis], chosen, *whole[axis + 1 :])))
        start += size
    return tuple(found)


def plan(transform: str, shape: tuple[int, ...]) -> Blocks | None:
    """How to evaluate a transform of one tensor in blocks of its first axis; None when it mixes the rows."""
    return _plan(parse(transform), shape) if shape else None


def _parts(
    piece: Piece, blocks: Blocks, checkpoint: Checkpoint, dtype: np.dtype, block_bytes: int
) -> Iterator[tuple[tuple[Any, ...], Array]]:
    count = blocks.stop - blocks.start
    step = max(1, block_bytes * count // max(1, _bytes(blocks.shape, dtype)))
    wide = is_arithmetic(piece.transform)
    for first in range(0, count, step):
        last = min(count, first + step)
        source = checkpoint.read(piece.hf[0], blocks.start + first, blocks.start + last)
        value = blocks.apply(source.astype(np.float64) if wide else source)
        yield _nested(piece.where, blocks.axis, first, last), _as(dtype, value)


def _as(dtype: np.dtype, value: np.ndarray) -> np.ndarray:
    """The value in the variable's dtype.

    Raises:
        ConversionError: `weight-range`, for integers that the dtype cannot hold.
    """
    kept = value.astype(dtype, copy=False)
    if value.dtype.kind in "iu" and not np.array_equal(kept, value):
        raise fail("weight-range", f"integers of a weight do not fit {dtype}: up to {np.abs(value).max()}")
    return kept


def _nested(where: tuple[Any, ...], axis: int, first: int, last: int) -> tuple[Any, ...]:
    """The part `first` to `last` along an axis of what `where` selects; an integer there has taken its axis away."""
    kept = [i for i, chosen in enumerate(where) if isinstance(chosen, slice)][axis]
    offset = where[kept].start or 0
    return (*where[:kept], slice(offset + first, offset + last), *where[kept + 1 :])


def _bytes(shape: Sequence[int], dtype: np.dtype) -> int:
    return math.prod(shape) * dtype.itemsize


def _axis(node: ast.Call) -> int:
    values = [k.value for k in node.keywords if k.arg == "axis"] + node.args[1:2]
    return int(ast.literal_eval(values[0])) if values else 0


def _restricted(item: ast.expr, row: Row) -> tuple[str, tuple[str, ...], list[tuple[int, ...]]]:
    """A subexpression over only the tensors it uses."""
    old = source_names(len(row.hf))
    used = [i for i, name in enumerate(old) if name in names_used(ast.unparse(item))]
    renamed = dict(zip([old[i] for i in used], source_names(len(used)), strict=True))
    tree = ast.parse(ast.unparse(item), mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = renamed.get(node.id, node.id)
    return ast.unparse(tree), tuple(row.hf[i] for i in used), [row.hf_shapes[i] for i in used]


def _plan(node: ast.expr, shape: tuple[int, ...]) -> Blocks | None:
    match node:
        case ast.Name():
            return Blocks(0, 0, shape[0], shape, lambda block: block)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _SCALAR:
            return _plan_scalar(_SCALAR[type(op)], left, right, shape)
        case ast.Call() if call_name(node) in _SCALAR.values():
            return _plan_scalar(call_name(node), node.args[0], node.args[1], shape)
        case ast.Call() if call_name(node) in _STEPS or call_name(node) in ELEMENTWISE:
            inner = _plan(node.args[0], shape)
            arguments = _arguments(node)
            if inner is None or arguments is None:
                return None
            if call_name(node) in ELEMENTWISE:
                function = VALUES[call_name(node)]
                return replace(inner, apply=lambda block: function(inner.apply(block), *arguments))
            return _STEPS[call_name(node)](inner, *arguments)
    return None


def _arguments(node: ast.Call) -> list[Any] | None:
    """Constant arguments after the array, in order; None when one is no constant."""
    try:
        return [ast.literal_eval(a) for a in [*node.args[1:], *(k.value for k in node.keywords)]]
    except ValueError:
        return None


def _plan_scalar(name: str, left: ast.expr, right: ast.expr, shape: tuple[int, ...]) -> Blocks | None:
    """Arithmetic with a constant on one side."""
    function, numbers = VALUES[name], [_number(left), _number(right)]
    inner = _plan(left if numbers[0] is None else right, shape)
    if inner is None or numbers.count(None) != 1:
        return None
    if numbers[0] is None:
        return replace(inner, apply=lambda block: function(inner.apply(block), numbers[1]))
    return replace(inner, apply=lambda block: function(numbers[0], inner.apply(block)))


def _number(node: ast.expr) -> int | float | None:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return None
    return value if isinstance(value, int | float) else None


def _transpose(inner: Blocks, axes: Sequence[int] | None = None) -> Blocks:
    rank = len(inner.shape)
    order = tuple(reversed(range(rank))) if axes is None else tuple(a % rank for a in axes)
    shape = tuple(inner.shape[a] for a in order)
    return replace(
        inner, axis=order.index(inner.axis), shape=shape, apply=lambda block: np.transpose(inner.apply(block), order)
    )


def _slice(inner: Blocks, starts: Sequence[int], sizes: Sequence[int]) -> Blocks:
    first = inner.start + starts[inner.axis]
    chosen = tuple(
        slice(None) if axis == inner.axis else slice(start, start + size)
        for axis, (start, size) in enumerate(zip(starts, sizes, strict=True))
    )
    return Blocks(inner.axis, first, first + sizes[inner.axis], tuple(sizes), lambda block: inner.apply(block)[chosen])


def _reshape(inner: Blocks, newshape: int | Sequence[int]) -> Blocks | None:
    """A reshape keeps the rows apart when they stay the first or the last axis."""
    shape = np.broadcast_to(np.zeros(()), inner.shape).reshape(newshape).shape
    if inner.axis == 0 and shape and shape[0] == inner.shape[0]:
        return replace(inner, shape=shape, apply=lambda block: inner.apply(block).reshape(-1, *shape[1:]))
    if inner.axis == len(inner.shape) - 1 and shape and shape[-1] == inner.shape[-1]:
        return replace(
            inner, axis=len(shape) - 1, shape=shape, apply=lambda block: inner.apply(block).reshape(*shape[:-1], -1)
        )
    return None


_STEPS: dict[str, Callable[..., Blocks | None]] = {"transpose": _transpose, "slice": _slice, "reshape": _reshape}
