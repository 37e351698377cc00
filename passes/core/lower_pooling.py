"""Lower pools to Keras's layout, channels last."""

import functools
from typing import Any

from hf2khc.ir.expr import Expr
from hf2khc.ir.graph import Node, Program
from hf2khc.passes.core.lowering import Builder, channels_first, channels_last, each, flag, lower, padded


def lower_pooling(program: Program) -> Program:
    """Turn pools into `ops.*` between two transposes; padding, and the rounding up of sizes, become explicit.

    Before:

        graph G(%x: f32[8, 3, 8]) {
          %y: f32[8, 3, 4] = aten.max_pool1d(%x, kernel_size=(2,))
          return %y
        }

        entry G

    After:

        graph G(%x: f32[8, 3, 8]) {
          %y_last: f32[8, 8, 3] = ops.transpose(%x, axes=(0, 2, 1))
          %y_max_pool: f32[8, 4, 3] = ops.max_pool(%y_last, pool_size=(2,), strides=(2,), data_format="channels_last")
          %y: f32[8, 3, 4] = ops.transpose(%y_max_pool, axes=(0, 2, 1))
          return %y
        }

        entry G
    """
    return lower(program, "lower_pooling", _LOWERINGS, _ITEMS)


def _max(rank: int, builder: Builder, node: Node) -> list[Node] | None:
    window = _window(builder, node, rank)
    if window is None or any(step != 1 for step in each(node, "dilation", rank)):
        return None
    size, strides, padding, behind = window
    if _is_whole(builder, node, window, rank):
        return builder.finish("ops.max", node.used[0], axis=tuple(range(-rank, 0)), keepdims=True)
    pairs = tuple((pad, pad + extra) for pad, extra in zip(padding, behind, strict=True))
    last = padded(builder, channels_last(builder, node.used[0], rank), pairs, float("-inf"))
    return channels_first(builder, builder.add("ops.max_pool", last, **_attrs(size, strides)), rank)


def _average(rank: int, builder: Builder, node: Node) -> list[Node] | None:
    """An average; where a window reaches past what counts, the average of ones makes up for it."""
    window = _window(builder, node, rank)
    if window is None or node.attrs.get("divisor_override"):
        return None
    size, strides, padding, behind = window
    if _is_whole(builder, node, window, rank):
        return builder.finish("ops.mean", node.used[0], axis=tuple(range(-rank, 0)), keepdims=True)
    counted = flag(node, "count_include_pad", True) is True
    x = channels_last(builder, node.used[0], rank)
    shape = builder.tensor(x).shape[1:-1]
    inner = tuple((pad, pad) for pad in padding)
    outer = tuple((pad, pad + extra) for pad, extra in zip(padding, behind, strict=True))
    average = builder.add("ops.average_pool", padded(builder, x, outer), **_attrs(size, strides))
    if any(behind) or (any(padding) and not counted):
        dtype = builder.tensor(x).dtype
        ones = builder.add("ops.ones", shape=(1, *shape, 1), dtype=dtype, title="ones")
        rest = outer
        if counted:
            ones = padded(builder, ones, inner, 1.0)
            rest = tuple((0, extra) for extra in behind)
        share = builder.add("ops.average_pool", padded(builder, ones, rest), title="share", **_attrs(size, strides))
        average = builder.add("ops.divide", average, share, title="average")
    return channels_first(builder, average, rank)


def _window(builder: Builder, node: Node, rank: int) -> tuple | None:
    """Sizes, strides, padding, and the padding behind that rounding the number of windows up takes."""
    if builder.tensor(node.used[0]).rank != rank + 2:
        return None
    size = each(node, "kernel_size", rank)
    strides = each(node, "stride", rank) if node.attrs.get("stride") else size
    padding = each(node, "padding", rank, 0)
    behind = (0,) * rank
    if flag(node, "ceil_mode"):
        held, made = builder.tensor(node.used[0]).shape[2:], node.tensor.shape[2:]
        behind = tuple(map(_behind, held, made, size, strides, padding))
    return size, strides, padding, behind


def _is_whole(builder: Builder, node: Node, window: tuple, rank: int) -> bool:
    """Whether the one window reaches past everything: torch then takes what there is."""
    size, _, padding, _ = window
    pairs = zip(builder.tensor(node.used[0]).shape[2:], node.tensor.shape[2:], size, padding, strict=True)
    return all(isinstance(held, int) and made == 1 and pad == 0 and held < s for held, made, s, pad in pairs)


def _behind(held: int | Expr, made: int | Expr, size: int, stride: int, pad: int) -> int:
    if isinstance(held, Expr) or isinstance(made, Expr):
        return stride - 1
    return max((made - 1) * stride + size - held - 2 * pad, 0)


def _attrs(size: tuple, strides: tuple) -> dict[str, Any]:
    return {"pool_size": size, "strides": strides, "data_format": "channels_last"}


def _adaptive_average(rank: int, builder: Builder, node: Node) -> list[Node] | None:
    x, size = node.used[0], _output_size(builder, node, rank)
    if all(s == 1 for s in size):
        return builder.finish("ops.mean", x, axis=tuple(range(-rank, 0)), keepdims=True)
    return _adaptive("average", rank, builder, x, size)


def _adaptive_max(rank: int, builder: Builder, producer: Node) -> list[Node] | None:
    """The values of an adaptive pool that returns their places, too."""
    if builder.root.op == "item" and builder.root.attrs["index"] != 0:
        return None
    return _adaptive("max", rank, builder, producer.used[0], _output_size(builder, producer, rank))


def _output_size(builder: Builder, node: Node, rank: int) -> tuple:
    held = builder.tensor(node.used[0]).shape[-rank:]
    return tuple(h if s is None else s for h, s in zip(held, each(node, "output_size", rank), strict=True))


def _adaptive(name: str, rank: int, builder: Builder, x: str, size: tuple) -> list[Node] | None:
    held = builder.tensor(x).shape
    if len(held) != rank + 2 or any(
        isinstance(h, Expr) or isinstance(s, Expr) for h, s in zip(held[2:], size, strict=True)
    ):
        return None
    last = channels_last(builder, x, rank)
    if any(h % s for h, s in zip(held[2:], size, strict=True)):
        attrs: dict[str, Any] = {"output_size": size, "data_format": "channels_last"}
        return channels_first(builder, builder.add(f"ops.adaptive_{name}_pool", last, **attrs), rank)
    window = tuple(h // s for h, s in zip(held[2:], size, strict=True))
    return channels_first(builder, builder.add(f"ops.{name}_pool", last, **_attrs(window, window)), rank)


_LOWERINGS = {
    **{f"aten.max_pool{rank}d": functools.partial(_max, rank) for rank in (1, 2, 3)},
    **{f"aten.avg_pool{rank}d": functools.partial(_average, rank) for rank in (1, 2, 3)},
    **{f"aten.adaptive_avg_pool{rank}d": functools.partial(_adaptive_average, rank) for rank in (1, 2, 3)},
}
_ITEMS = {f"aten.adaptive_max_pool{rank}d": functools.partial(_adaptive_max, rank) for rank in (1, 2, 3)}
