"""Lower counting and products by groups, which mixtures of experts are traced to."""

from typing import Any

from hf2khc.ir.graph import Node, Program
from hf2khc.passes.core.lowering import Builder, flag, lower


def lower_grouped(program: Program) -> Program:
    """Turn products of groups of rows with a matrix per group, and histograms, into `ops.*` of fixed shapes.

    Each row meets its group's matrix by being zero for every other one.

    Before:

        graph Experts(%x: f32[batch, 8], %weight: f32[4, 8, 6], %ends: i32[4]) {
          %y: f32[batch, 6] = transformers.grouped_mm_fallback(%x, %weight, %ends)
          return %y
        }

        entry Experts

    After:

        graph Experts(%x: f32[batch, 8], %weight: f32[4, 8, 6], %ends: i32[4]) {
          %y_rows: i32[batch] = ops.arange(start=0, stop=batch, dtype="int32")
          %y_row: i32[batch, 1] = ops.expand_dims(%y_rows, axis=-1)
          %y_before_end: bool[batch, 4] = ops.less(%y_row, %ends)
          %y_ends: i32[3] = ops.get_item(%ends, key=("slice", none, -1, none))
          %y_starts: i32[4] = ops.pad(%y_ends, pad_width=((1, 0),))
          %y_after_start: bool[batch, 4] = ops.greater_equal(%y_row, %y_starts)
          %y_member: bool[batch, 4] = ops.logical_and(%y_before_end, %y_after_start)
          %y_expand_dims: bool[batch, 4, 1] = ops.expand_dims(%y_member, axis=-1)
          %y_expand_dims_1: f32[batch, 1, 8] = ops.expand_dims(%x, axis=1)
          %y_grouped: f32[batch, 4, 8] = ops.where(%y_expand_dims, %y_expand_dims_1, x2=0.0)
          %y: f32[batch, 6] = ops.einsum(%y_grouped, %weight, subscripts="rgi,gio->ro")
          return %y
        }

        entry Experts
    """
    return lower(program, "lower_grouped", _LOWERINGS)


def _grouped_product(builder: Builder, node: Node) -> list[Node] | None:
    if len(node.operands) != 3 or node.attrs or None in node.operands:
        return None
    x, weight, ends = node.used
    if [builder.tensor(operand).rank for operand in (x, weight, ends)] != [2, 3, 1]:
        return None
    dtype = builder.tensor(ends).dtype
    rows = builder.add("ops.arange", start=0, stop=builder.tensor(x).shape[0], dtype=dtype, title="rows")
    row = builder.add("ops.expand_dims", rows, axis=-1, title="row")
    before_end = builder.add("ops.less", row, ends, title="before_end")
    starts = builder.add("ops.get_item", ends, key=("slice", None, -1, None), title="ends")
    starts = builder.add("ops.pad", starts, pad_width=((1, 0),), title="starts")
    after_start = builder.add("ops.greater_equal", row, starts, title="after_start")
    member = builder.add("ops.logical_and", before_end, after_start, title="member")
    member = builder.add("ops.expand_dims", member, axis=-1)
    grouped = builder.add("ops.where", member, builder.add("ops.expand_dims", x, axis=1), x2=0.0, title="grouped")
    return builder.finish("ops.einsum", grouped, weight, subscripts="rgi,gio->ro")


def _histogram(builder: Builder, node: Node) -> list[Node] | None:
    """How many values fall into each of several bins of equal width; the last one takes its upper end in."""
    x = node.used[0]
    bins, low, high = flag(node, "bins", 100), flag(node, "min", 0), flag(node, "max", 0)
    if low == high:
        return None  # torch then takes the range from the values
    shape = builder.tensor(x).shape
    if len(shape) != 1:
        x = builder.add("ops.reshape", x, newshape=(-1,), title="flat")
    number = _whole(builder, x) if low == 0 and high == bins - 1 else None
    if number is None:
        number = _bin(builder, x, bins, low, high)
    chosen = builder.add("ops.one_hot", number, num_classes=bins, dtype=node.tensor.dtype, title="bins")
    return builder.finish("ops.sum", chosen, axis=0)


def _whole(builder: Builder, x: str) -> str | None:
    """The integers that a value was cast from: with bins as many as numbers, each is its own bin."""
    cast = builder.graph.nodes.get(x)
    if cast is None or cast.op not in ("aten.to", "aten._to_copy"):
        return None
    source = cast.used[0]
    return source if "int" in builder.tensor(source).dtype else None


def _bin(builder: Builder, x: str, bins: Any, low: Any, high: Any) -> str:
    """The bin of each value; one outside the range gets -1."""
    shifted = x if low == 0 else builder.add("ops.subtract", x, x2=low, title="shifted")
    scaled = builder.add("ops.multiply", shifted, x2=bins, title="scaled")
    scaled = builder.add("ops.divide", scaled, x2=high - low, title="scaled")
    number = builder.add("ops.cast", builder.add("ops.floor", scaled), dtype="int64", title="number")
    number = builder.add("ops.minimum", number, x2=bins - 1, title="number")
    above = builder.add("ops.greater_equal", x, x2=low, title="above")
    below = builder.add("ops.less_equal", x, x2=high, title="below")
    inside = builder.add("ops.logical_and", above, below, title="inside")
    return builder.add("ops.where", inside, number, x2=-1, title="number")


_LOWERINGS = {
    "transformers.grouped_mm_fallback": _grouped_product,
    "aten._grouped_mm": _grouped_product,
    "aten.histc": _histogram,
}
