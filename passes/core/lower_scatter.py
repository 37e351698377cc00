"""Lower torch's writes at indices to `ops.scatter_update` and `ops.where`."""

from collections.abc import Sequence

from hf2khc.ir.expr import Expr, same, simplify
from hf2khc.ir.graph import Node, Program
from hf2khc.ir.infer_special import place_on
from hf2khc.passes.core.lower_indexing import positive
from hf2khc.passes.core.lowering import Builder, axis_of, broadcast_shape, equal_shapes, flag, lower, product

# How values meet those that are there.
_REDUCTIONS = {None: None, "add": "add", "sum": "add", "amax": "max", "amin": "min", "multiply": "mul", "prod": "mul"}
# Up to so many indices per row, comparing each with every position is less to compute than it is to scatter.
_FEW = 64


def lower_scatter(program: Program) -> Program:
    """Turn scatters and assignments to `x[index]` into `ops.*`.

    Places are a list of coordinates. A number written to a few places per row is chosen by comparing positions.

    Before:

        graph Inverse(%zeros: i64[seq], %permutation: i64[seq], %positions: i64[seq]) {
          %y: i64[seq] = aten.index_put(%zeros, %permutation, %positions)
          return %y
        }

        entry Inverse

    After:

        graph Inverse(%zeros: i64[seq], %permutation: i64[seq], %positions: i64[seq]) {
          %y_from_front: i64[seq] = ops.mod(%permutation, x2=seq)
          %y_places: i64[seq, 1] = ops.expand_dims(%y_from_front, axis=-1)
          %y: i64[seq] = ops.scatter_update(%zeros, %y_places, %positions)
          return %y
        }

        entry Inverse
    """
    return lower(program, "lower_scatter", _LOWERINGS)


def _index_put(builder: Builder, node: Node) -> list[Node] | None:
    x, *indices, values = node.operands
    axes = [axis for axis, index in enumerate(indices) if index is not None]
    given = [index for index in indices if index is not None]
    assert x is not None and values is not None
    masks = [index for index in given if builder.tensor(index).dtype == "bool"]
    if masks:
        return _put_where(builder, x, masks[0], values, axes[0]) if len(given) == 1 and not _adds(node) else None
    held = builder.tensor(x)
    rest = [axis for axis in range(held.rank) if axis not in axes]
    box = broadcast_shape([builder.tensor(index).shape for index in given])
    given = [positive(builder, index, held.shape[axis]) for index, axis in zip(given, axes, strict=True)]
    places = _coordinates(builder, given, box)
    values = _values_in_front(builder, values, axes, rest, held.shape, box)
    return _scattered(builder, x, (*axes, *rest), places, values, "add" if _adds(node) else None)


def _adds(node: Node) -> bool:
    return flag(node, "accumulate") is True


def _put_where(builder: Builder, x: str, mask: str, values: str, axis: int) -> list[Node] | None:
    """A mask over the axes from `axis` on; what is written is the same for every place, or one row for each."""
    held, masked = builder.tensor(x), builder.tensor(mask)
    behind = held.rank - axis - masked.rank
    written = builder.tensor(values)
    if written.rank > behind and any(size != 1 for size in written.shape[: written.rank - behind]):
        if axis or written.rank != behind + 1:
            return None
        values = _row_for_each(builder, mask, values)
    if behind:
        mask = builder.add("ops.reshape", mask, newshape=(*masked.shape, *(1,) * behind), title="mask")
    return builder.finish("ops.where", mask, values, x)


def _row_for_each(builder: Builder, mask: str, rows: str) -> str:
    """The n-th row at the n-th chosen place, and any row elsewhere."""
    shape, rest = builder.tensor(mask).shape, builder.tensor(rows).shape[1:]
    flat = builder.add("ops.reshape", mask, newshape=(product(shape),), title="flat")
    taken = builder.add("ops.take", rows, _numbers(builder, flat, rows), axis=0, title="taken")
    return builder.add("ops.reshape", taken, newshape=(*shape, *rest), title="values")


def _numbers(builder: Builder, flat: str, values: str) -> str:
    """For every chosen place of a flat mask its number among those that are chosen."""
    count = builder.add("ops.cumsum", builder.add("ops.cast", flat, dtype="int64"), axis=0, title="count")
    number = builder.add("ops.maximum", builder.add("ops.subtract", count, x2=1, title="number"), x2=0, title="number")
    return _within(builder, number, values)


def _values_in_front(builder: Builder, values: str, axes: list[int], rest: list[int], shape: tuple, box: tuple) -> str:
    """The values as (places, ...rest): torch has the places where the indexed axes are, if those lie side by side."""
    first = axes[0] if axes == list(range(axes[0], axes[0] + len(axes))) else 0
    around = [shape[axis] for axis in rest]
    wanted = (*around[:first], *box, *around[first:])
    if not equal_shapes(builder.tensor(values).shape, wanted):
        values = builder.add("ops.broadcast_to", values, shape=wanted, title="values")
    if first:
        order = (*range(first, first + len(box)), *range(first), *range(first + len(box), len(wanted)))
        values = builder.add("ops.transpose", values, axes=order, title="values")
    if len(box) != 1:
        values = builder.add("ops.reshape", values, newshape=(product(box), *around), title="values")
    return values


def _coordinates(builder: Builder, indices: Sequence[str], box: tuple) -> str:
    """Indices that broadcast to the shape `box` as (places, axes)."""
    columns = []
    for column in indices:
        if not equal_shapes(builder.tensor(column).shape, box):
            column = builder.add("ops.broadcast_to", column, shape=box, title="index")
        if len(box) != 1:
            column = builder.add("ops.reshape", column, newshape=(product(box),), title="index")
        columns.append(column)
    if len(columns) == 1:
        return builder.add("ops.expand_dims", columns[0], axis=-1, title="places")
    return builder.add("ops.stack", *columns, axis=-1, title="places")


def _scattered(builder: Builder, x: str, order: tuple, places: str, values: str, reduction) -> list[Node]:
    """Write to places in the axes that `order` brings to the front."""
    attrs = {"reduction": reduction} if reduction else {}
    if order == tuple(range(len(order))):
        return builder.finish("ops.scatter_update", x, places, values, **attrs)
    turned = builder.add("ops.transpose", x, axes=order, title="turned")
    written = builder.add("ops.scatter_update", turned, places, values, **attrs)
    return builder.finish("ops.transpose", written, axes=tuple(order.index(axis) for axis in range(len(order))))


def _index_add(builder: Builder, node: Node) -> list[Node]:
    x, index, source = node.used
    held = builder.tensor(x)
    axis = axis_of(node, held.rank)
    if flag(node, "alpha", 1) != 1:
        source = builder.add("ops.multiply", source, None, x2=node.attrs["alpha"], title="scaled")
    places = _coordinates(builder, [index], builder.tensor(index).shape)
    order = (axis, *(a for a in range(held.rank) if a != axis))
    if axis:
        source = builder.add("ops.transpose", source, axes=order, title="source")
    return _scattered(builder, x, order, places, source, "add")


def _scatter(builder: Builder, node: Node) -> list[Node] | None:
    """`x[i, index[i, j]] = source[i, j]` along an axis."""
    x, index, source = (*node.operands, None)[:3]
    assert x is not None and index is not None
    held, where = builder.tensor(x), builder.tensor(index)
    reduction = "add" if node.op == "aten.scatter_add" else node.attrs.get("reduce")
    if held.rank == 0 or reduction not in _REDUCTIONS:
        return None
    axis = axis_of(node, held.rank)
    count = where.shape[axis]
    rows = equal_shapes(held.shape[:-1], where.shape[:-1]) and axis == held.rank - 1
    if reduction is None and rows and isinstance(count, int) and count <= _FEW:
        if source is None:
            return _put_few(builder, node, x, index)
        if equal_shapes(builder.tensor(source).shape, where.shape) and (count == 1 or _is_distinct(builder, index)):
            return _put_each(builder, x, index, source)
    places = _grid(builder, index, axis)
    size = product(where.shape)
    if source is None:
        attrs = {"shape": (size,), "fill_value": node.attrs["value"], "dtype": held.dtype}
        source = builder.add("ops.full", **attrs, title="values")
    else:
        source = _cut(builder, source, where.shape)
        source = builder.add("ops.reshape", source, newshape=(size,), title="values")
    how = _REDUCTIONS[reduction]  # type: ignore[index]
    if how and flag(node, "include_self", True) is not True:
        return _without_itself(builder, x, places, source, how)
    return _scattered(builder, x, tuple(range(held.rank)), places, source, how)


def _without_itself(builder: Builder, x: str, places: str, source: str, how: str) -> list[Node]:
    """Where something is written, what was there does not count."""
    fill = {"add": 0.0, "mul": 1.0, "max": float("-inf"), "min": float("inf")}[how]
    start = builder.add("ops.full_like", x, fill_value=fill, title="start")
    written = builder.add("ops.scatter_update", start, places, source, reduction=how, title="written")
    nothing = builder.add("ops.zeros", shape=builder.tensor(x).shape, dtype="int32", title="nothing")
    ones = builder.add("ops.ones", shape=(builder.tensor(places).shape[0],), dtype="int32", title="ones")
    count = builder.add("ops.scatter_update", nothing, places, ones, reduction="add", title="count")
    return builder.finish("ops.where", builder.add("ops.greater", count, x2=0), written, x)


def _put_few(builder: Builder, node: Node, x: str, index: str) -> list[Node] | None:
    """Write a number to a few places of every row."""
    chosen = builder.add("ops.any", _chosen(builder, x, index), axis=-2, title="is_chosen")
    return builder.finish("ops.where", chosen, None, x, x1=node.attrs["value"])


def _positions(builder: Builder, x: str) -> str:
    """The places of a row."""
    return builder.add("ops.arange", start=0, stop=builder.tensor(x).shape[-1], dtype="int64", title="positions")


def _chosen(builder: Builder, x: str, index: str) -> str:
    """For every index of a row which of its places it means."""
    positions = _positions(builder, x)
    return builder.add("ops.equal", builder.add("ops.expand_dims", index, axis=-1), positions, title="chosen")


def _is_distinct(builder: Builder, index: str) -> bool:
    """Whether no index of a row comes twice: those of its largest entries do not."""
    node = builder.graph[index]
    producer = builder.graph[node.used[0]] if node.op == "item" else node
    last = builder.tensor(index).rank - 1
    return producer.op in ("aten.topk", "ops.top_k") and axis_of(producer, last + 1, default=-1) == last


def _put_each(builder: Builder, x: str, index: str, source: str) -> list[Node]:
    """Write values to a few places of every row, each to its own."""
    if builder.tensor(index).shape[-1] == 1:
        chosen = builder.add("ops.equal", index, _positions(builder, x), title="chosen")
        return builder.finish("ops.where", chosen, source, x)
    chosen = _chosen(builder, x, index)
    given = builder.add("ops.expand_dims", source, axis=-1, title="given")
    given = builder.add("ops.where", chosen, given, None, x2=0, title="given")
    values = builder.add("ops.sum", given, axis=-2, title="values")
    return builder.finish("ops.where", builder.add("ops.any", chosen, axis=-2, title="is_chosen"), values, x)


def _grid(builder: Builder, index: str, axis: int) -> str:
    """The coordinates that indices along one axis stand for, as (places, axes)."""
    shape = builder.tensor(index).shape
    columns = []
    for other, size in enumerate(shape):
        if other == axis:
            columns.append(index)
            continue
        count = builder.add("ops.arange", start=0, stop=size, dtype="int64", title="count")
        wide = (*(1,) * other, size, *(1,) * (len(shape) - other - 1))
        columns.append(builder.add("ops.reshape", count, newshape=wide, title="row"))
    return _coordinates(builder, columns, shape)


def _cut(builder: Builder, source: str, shape: tuple) -> str:
    """The part of a source that has the shape of the indices."""
    if equal_shapes(builder.tensor(source).shape, shape):
        return source
    key = tuple(("slice", None, size, None) for size in shape)
    return builder.add("ops.get_item", source, key=key, title="used")


def _masked_scatter(builder: Builder, node: Node) -> list[Node]:
    """The n-th chosen place takes the n-th value."""
    x, mask, source = node.used
    shape = builder.tensor(x).shape
    if not equal_shapes(builder.tensor(mask).shape, shape):
        mask = builder.add("ops.broadcast_to", mask, shape=shape, title="mask")
    flat = builder.add("ops.reshape", mask, newshape=(product(shape),), title="flat")
    values = builder.add("ops.reshape", source, newshape=(product(builder.tensor(source).shape),), title="values")
    taken = builder.add("ops.take", values, _numbers(builder, flat, values), axis=0)
    return builder.finish("ops.where", mask, builder.add("ops.reshape", taken, newshape=shape), x)


def _slice_scatter(builder: Builder, node: Node) -> list[Node] | None:
    """`x[:, start:end] = source`: what stands before, the source, what stands behind."""
    x, source = node.used
    held, put = builder.tensor(x).shape, builder.tensor(source).shape
    axis = axis_of(node, len(held))
    if flag(node, "step", 1) != 1:
        return _strided_scatter(builder, node, axis)
    start = place_on(held[axis], node.attrs.get("start"), 0)
    return _replaced(builder, x, source, axis, start, simplify(f"({start}) + ({put[axis]})"))


def _select_scatter(builder: Builder, node: Node) -> list[Node] | None:
    x, source = node.used
    held = builder.tensor(x).shape
    axis = axis_of(node, len(held))
    index = place_on(held[axis], node.attrs["index"], 0)
    source = builder.add("ops.expand_dims", source, axis=axis, title="row")
    return _replaced(builder, x, source, axis, index, simplify(f"({index}) + 1"))


def _replaced(builder: Builder, x: str, source: str, axis: int, start, stop) -> list[Node]:
    """A value with the part from `start` to `stop` replaced."""
    size, whole = builder.tensor(x).shape[axis], (("slice", None, None, None),) * axis
    parts = [source]
    if not same(start, 0):
        parts.insert(0, builder.add("ops.get_item", x, key=(*whole, ("slice", None, start, None)), title="before"))
    if not same(stop, size):
        parts.append(builder.add("ops.get_item", x, key=(*whole, ("slice", stop, None, None)), title="behind"))
    if len(parts) == 1:
        return builder.finish("ops.broadcast_to", source, shape=builder.tensor(x).shape)
    return builder.finish("ops.concatenate", *parts, axis=axis)


def _strided_scatter(builder: Builder, node: Node, axis: int) -> list[Node]:
    x, source = node.used
    held, put = builder.tensor(x), builder.tensor(source).shape
    index = builder.add("ops.arange", start=0, stop=put[axis], dtype="int64", title="count")
    index = builder.add("ops.multiply", index, x2=node.attrs["step"], title="index")
    if node.attrs.get("start"):
        index = builder.add("ops.add", index, x2=node.attrs["start"], title="index")
    order = (axis, *(a for a in range(held.rank) if a != axis))
    if axis:
        source = builder.add("ops.transpose", source, axes=order, title="source")
    return _scattered(builder, x, order, _coordinates(builder, [index], (put[axis],)), source, None)


def _within(builder: Builder, number: str, values: str) -> str:
    """An index that stays in range: past the last chosen place it may be one too large, and nobody reads it."""
    size = builder.tensor(values).shape[0]
    last = simplify(f"({size}) - 1") if isinstance(size, Expr) else size - 1
    return builder.add("ops.minimum", number, x2=last, title="number")


_LOWERINGS = {
    "aten.index_put": _index_put,
    "aten.index_add": _index_add,
    "aten.scatter": _scatter,
    "aten.scatter_add": _scatter,
    "aten.scatter_reduce": _scatter,
    "aten.masked_scatter": _masked_scatter,
    "aten.slice_scatter": _slice_scatter,
    "aten.select_scatter": _select_scatter,
}
