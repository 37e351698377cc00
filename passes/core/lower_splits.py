"""Lower torch ops of several results."""

from collections.abc import Sequence

from hf2khc.ir.expr import same, simplify
from hf2khc.ir.graph import Node, Program
from hf2khc.passes.core.lowering import Builder, axis_of, flag, lower


def lower_splits(program: Program) -> Program:
    """Turn splits, and extrema and sorts with their indices, into `ops.*`.

    Before:

        graph Split(%x: f32[batch, 12]) {
          %parts: (f32[batch, 4], f32[batch, 8]) = aten.split_with_sizes(%x, split_sizes=(4, 8), dim=-1)
          %a: f32[batch, 4] = item(%parts, index=0)
          %b: f32[batch, 8] = item(%parts, index=1)
          return %a, %b
        }

        entry Split

    After:

        graph Split(%x: f32[batch, 12]) {
          %parts: (f32[batch, 4], f32[batch, 8]) = ops.split(%x, indices_or_sections=(4,), axis=1)
          %a: f32[batch, 4] = item(%parts, index=0)
          %b: f32[batch, 8] = item(%parts, index=1)
          return %a, %b
        }

        entry Split
    """
    return lower(program, "lower_splits", _SEVERAL, _ITEMS)


def _split(builder: Builder, node: Node) -> list[Node]:
    parts = node.type
    assert isinstance(parts, tuple)
    axis = axis_of(node, builder.tensor(node.used[0]).rank)
    sizes = [part.shape[axis] for part in parts]
    # Sizes that a model lists may differ at another config, though they are the same here.
    if node.op != "aten.split_with_sizes" and all(same(size, sizes[0]) for size in sizes):
        return builder.finish("ops.split", node.used[0], indices_or_sections=len(sizes), axis=axis)
    return builder.finish("ops.split", node.used[0], indices_or_sections=_borders(sizes), axis=axis)


def _borders(sizes: Sequence) -> tuple:
    borders, total = [], 0
    for size in sizes[:-1]:
        total = simplify(f"({total}) + ({size})")
        borders.append(total)
    return tuple(borders)


def _unbound(builder: Builder, producer: Node) -> list[Node]:
    """One result of `unbind`."""
    x = producer.used[0]
    axis = axis_of(producer, builder.tensor(x).rank)
    key = (("slice", None, None, None),) * axis + (builder.root.attrs["index"],)
    return builder.finish("ops.get_item", x, key=key)


def _extremum(name: str):
    """One result of `max(x, dim)`: the values or their indices."""

    def lowering(builder: Builder, producer: Node) -> list[Node] | None:
        if "dim" not in producer.attrs:
            return None
        op = f"ops.{name}" if builder.root.attrs["index"] == 0 else f"ops.arg{name}"
        attrs = {"axis": producer.attrs["dim"], "keepdims": flag(producer, "keepdim")}
        return builder.finish(op, producer.used[0], **attrs)

    return lowering


def _sorted(builder: Builder, producer: Node) -> list[Node] | None:
    """One result of `sort`: the values or their indices, the largest first on request."""
    x = producer.used[0]
    axis = axis_of(producer, builder.tensor(x).rank, default=-1)
    op = "ops.sort" if builder.root.attrs["index"] == 0 else "ops.argsort"
    if not flag(producer, "descending"):
        return builder.finish(op, x, axis=axis)
    if builder.root.attrs["index"] == 0:
        return builder.finish("ops.flip", builder.add(op, x, axis=axis), axis=axis)
    # Ties: the first of equals stays first when the negated values are sorted upwards.
    return builder.finish(op, builder.add("ops.negative", x), axis=axis)


def _moments(name: str):
    """One result of `var_mean` or `std_mean`."""

    def lowering(builder: Builder, producer: Node) -> list[Node] | None:
        attrs = {"axis": producer.attrs.get("dim"), "keepdims": flag(producer, "keepdim")}
        if builder.root.attrs["index"] == 1:
            return builder.finish("ops.mean", producer.used[0], **attrs)
        if flag(producer, "correction", 1) == 0 or flag(producer, "unbiased", True) is False:
            return builder.finish(f"ops.{name}", producer.used[0], **attrs)
        return None

    return lowering


def _broadcast(builder: Builder, producer: Node) -> list[Node]:
    """One result of `broadcast_tensors`."""
    x = producer.operands[int(str(builder.root.attrs["index"]))]
    return builder.finish("ops.broadcast_to", x, shape=builder.root.tensor.shape)


# By whether the numbers are floats; integers have 32 bits on some backends.
_WORST = {"max": (-(2**31), float("-inf")), "min": (2**31 - 1, float("inf"))}


def _running(name: str):
    """One result of `cummax` or `cummin`: an extremum over all up to each place, or the last place that has it."""

    def lowering(builder: Builder, producer: Node) -> list[Node] | None:
        x = producer.used[0]
        held = builder.tensor(x)
        axis = axis_of(producer, held.rank)
        if held.dtype == "bool":
            return None
        size = held.shape[axis]
        place = builder.add("ops.arange", start=0, stop=size, dtype="int64", title="place")
        until = builder.add("ops.expand_dims", place, axis=1, title="until")
        seen = builder.add("ops.less_equal", place, until, title="seen")
        worst = _WORST[name][held.is_floating]
        row = builder.add("ops.moveaxis", x, source=axis, destination=-1, title="row")
        rows = builder.add(
            "ops.where", seen, builder.add("ops.expand_dims", row, axis=-2), None, x2=worst, title="rows"
        )
        best = builder.add(f"ops.{name}", rows, axis=-1, title="best")
        if builder.root.attrs["index"] == 0:
            return builder.finish("ops.moveaxis", best, source=-1, destination=axis)
        hit = builder.add("ops.equal", rows, builder.add("ops.expand_dims", best, axis=-1), title="hit")
        hit = builder.add("ops.logical_and", hit, seen, title="hit")
        last = builder.add("ops.max", builder.add("ops.where", hit, place, None, x2=-1), axis=-1, title="last")
        return builder.finish("ops.moveaxis", last, source=-1, destination=axis)

    return lowering


def _top_k(builder: Builder, node: Node) -> list[Node] | None:
    x = node.used[0]
    last = builder.tensor(x).rank - 1
    if axis_of(node, last + 1, default=-1) != last or flag(node, "largest", True) is not True:
        return None
    return builder.finish("ops.top_k", x, k=node.attrs["k"], sorted=flag(node, "sorted", True))


def _variance(name: str):
    """Variance or deviation: the sum of squares over the size less a correction, which Keras does not take."""

    def lowering(builder: Builder, node: Node) -> list[Node] | None:
        correction = node.attrs.get("correction", 1 if flag(node, "unbiased", True) else 0)
        if correction == 0:
            return None
        x, dims = node.used[0], node.attrs.get("dim")
        shape = builder.tensor(x).shape
        axes = (
            range(len(shape))
            if dims is None
            else [d % len(shape) for d in (dims if isinstance(dims, tuple) else (dims,))]
        )
        count = simplify(" * ".join(f"({shape[axis]})" for axis in axes))
        factor = simplify(f"({count}) / (({count}) - {correction})")
        attrs = {"axis": dims, "keepdims": flag(node, "keepdim")}
        if name == "var":
            return builder.finish("ops.multiply", builder.add("ops.var", x, **attrs), x2=factor)
        scaled = builder.add("ops.multiply", builder.add("ops.var", x, **attrs), x2=factor)
        return builder.finish("ops.sqrt", scaled)

    return lowering


SPLITS = dict.fromkeys(("aten.split", "aten.split_with_sizes", "aten.chunk", "aten.tensor_split"), _split)
_SEVERAL = {
    **SPLITS,
    "aten.topk": _top_k,
    "aten.var": _variance("var"),
    "aten.std": _variance("std"),
}
_ITEMS = {
    "aten.unbind": _unbound,
    "aten.max": _extremum("max"),
    "aten.min": _extremum("min"),
    "aten.sort": _sorted,
    "aten.broadcast_tensors": _broadcast,
    "aten.cummax": _running("max"),
    "aten.cummin": _running("min"),
    "aten.var_mean": _moments("var"),
    "aten.std_mean": _moments("std"),
}
