"""Lower convolutions, pooling and the norms of images to Keras's layout, channels last."""

from typing import Any

from hf2khc.ir.expr import Expr, simplify
from hf2khc.ir.graph import Node, Program
from hf2khc.passes.core.lowering import Builder, axis_of, flag, lower


def lower_convolution(program: Program) -> Program:
    """Turn convolutions and pools into `ops.*` between two transposes; padding becomes explicit.

    Before:

        graph Patches(%x: f32[batch, 3, 32, 32]) {
          param @weight: f32[8, 3, 16, 16]
          %y: f32[batch, 8, 2, 2] = aten.conv2d(%x, @weight, stride=(16, 16))
          return %y
        }

        entry Patches

    After:

        graph Patches(%x: f32[batch, 3, 32, 32]) {
          param @weight: f32[8, 3, 16, 16]
          %y_last: f32[batch, 32, 32, 3] = ops.transpose(%x, axes=(0, 2, 3, 1))
          %y_kernel: f32[16, 16, 3, 8] = ops.transpose(@weight, axes=(2, 3, 1, 0))
          %y_conv: f32[batch, 2, 2, 8] = ops.conv(%y_last, %y_kernel, strides=(16, 16), data_format="channels_last")
          %y: f32[batch, 8, 2, 2] = ops.transpose(%y_conv, axes=(0, 3, 1, 2))
          return %y
        }

        entry Patches
    """
    return lower(program, "lower_convolution", _LOWERINGS)


def _conv(builder: Builder, node: Node) -> list[Node] | None:
    x, weight, bias = (*node.operands, None)[:3]
    assert x is not None and weight is not None
    rank = builder.tensor(weight).rank - 2
    if builder.tensor(x).rank != rank + 2:
        return None
    padding, dilation = flag(node, "padding", 0), _each(node, "dilation", rank)
    if padding == "same":
        sizes = (int(str(size)) for size in builder.tensor(weight).shape[2:])
        extents = [(size - 1) * step for size, step in zip(sizes, dilation, strict=True)]
        pairs = tuple((extent // 2, extent - extent // 2) for extent in extents)
    else:
        pairs = tuple((p, p) for p in ((0,) * rank if padding == "valid" else _each(node, "padding", rank, 0)))
    last = _padded(builder, _channels_last(builder, x, rank), pairs)
    kernel = builder.add("ops.transpose", weight, axes=(*range(2, rank + 2), 1, 0), title="kernel")
    attrs: dict[str, Any] = {"strides": _each(node, "stride", rank), "data_format": "channels_last"}
    if any(step != 1 for step in dilation):
        attrs["dilation_rate"] = dilation
    made = builder.add("ops.conv", last, kernel, **attrs)
    if bias is not None:
        made = builder.add("ops.add", made, bias, title="biased")
    return _channels_first(builder, made, rank)


def _conv_transpose(builder: Builder, node: Node) -> list[Node] | None:
    x, weight, bias = (*node.operands, None)[:3]
    assert x is not None and weight is not None
    rank = builder.tensor(weight).rank - 2
    padding, strides = _each(node, "padding", rank, 0), _each(node, "stride", rank)
    if flag(node, "groups", 1) != 1 or any(step != 1 for step in _each(node, "dilation", rank)):
        return None
    if any(extra > pad for extra, pad in zip(_each(node, "output_padding", rank, 0), padding, strict=True)):
        return None
    kernel = builder.add("ops.transpose", weight, axes=(*range(2, rank + 2), 1, 0), title="kernel")
    attrs: dict[str, Any] = {"strides": strides, "data_format": "channels_last"}
    made = builder.add("ops.conv_transpose", _channels_last(builder, x, rank), kernel, **attrs)
    sizes = node.tensor.shape[2:]
    ends = [simplify(f"({size}) + {pad}") for size, pad in zip(sizes, padding, strict=True)]
    if builder.tensor(made).shape[1:-1] != tuple(sizes):
        crop = tuple(("slice", pad or None, end, None) for pad, end in zip(padding, ends, strict=True))
        made = builder.add("ops.get_item", made, key=(("slice", None, None, None), *crop), title="cropped")
    if bias is not None:
        made = builder.add("ops.add", made, bias, title="biased")
    return _channels_first(builder, made, rank)


def _pool(op: str, rank: int, fill: float):
    def lowering(builder: Builder, node: Node) -> list[Node] | None:
        size = _each(node, "kernel_size", rank)
        strides = _each(node, "stride", rank) if node.attrs.get("stride") else size
        padding = _each(node, "padding", rank, 0)
        if (
            flag(node, "ceil_mode")
            or node.attrs.get("divisor_override")
            or any(d != 1 for d in _each(node, "dilation", rank))
        ):
            return None
        if op == "ops.average_pool" and any(padding) and flag(node, "count_include_pad", True) is not True:
            return None
        if builder.tensor(node.used[0]).rank != rank + 2:
            return None
        last = _padded(builder, _channels_last(builder, node.used[0], rank), tuple((p, p) for p in padding), fill)
        attrs: dict[str, Any] = {"pool_size": size, "strides": strides, "data_format": "channels_last"}
        return _channels_first(builder, builder.add(op, last, **attrs), rank)

    return lowering


def _adaptive_average(rank: int):
    def lowering(builder: Builder, node: Node) -> list[Node] | None:
        size = _each(node, "output_size", rank)
        x = node.used[0]
        if all(s == 1 for s in size):
            return builder.finish("ops.mean", x, axis=tuple(range(-rank, 0)), keepdims=True)
        held = builder.tensor(x).shape[-rank:]
        if builder.tensor(x).rank != rank + 2 or any(
            isinstance(h, Expr) or h % s for h, s in zip(held, size, strict=True)
        ):
            return None
        window = tuple(h // s for h, s in zip(held, size, strict=True))
        last = _channels_last(builder, x, rank)
        attrs: dict[str, Any] = {"pool_size": window, "strides": window, "data_format": "channels_last"}
        return _channels_first(builder, builder.add("ops.average_pool", last, **attrs), rank)

    return lowering


def _group_norm(builder: Builder, node: Node) -> list[Node]:
    x, weight, bias = (*node.operands, None, None)[:3]
    assert x is not None
    shape = builder.tensor(x).shape
    groups = node.attrs["num_groups"]
    rest = simplify(" * ".join(f"({d})" for d in shape[1:]) + f" // {groups}")
    return _normalized(builder, node, x, (shape[0], groups, rest), weight, bias, (shape[1],) + (1,) * (len(shape) - 2))


def _layer_norm(builder: Builder, node: Node) -> list[Node] | None:
    x, weight, bias = (*node.operands, None, None)[:3]
    assert x is not None
    normal = node.attrs["normalized_shape"]
    assert isinstance(normal, tuple)
    if len(normal) == 1:
        return None
    shape = builder.tensor(x).shape
    size = simplify(" * ".join(f"({d})" for d in normal))
    return _normalized(builder, node, x, (*shape[: -len(normal)], size), weight, bias, normal)


def _normalized(builder: Builder, node: Node, x: str, flat: tuple, weight, bias, scale: tuple) -> list[Node]:
    """Normalise over the last axis of the shape `flat`, then scale and shift in the shape of `x`."""
    made = builder.add("ops.reshape", x, newshape=flat, title="flat")
    epsilon = flag(node, "eps", 1e-05)
    made = builder.add("ops.layer_normalization", made, axis=-1, epsilon=epsilon, title="normal")
    if weight is None and bias is None:
        return builder.finish("ops.reshape", made, newshape=builder.tensor(x).shape)
    made = builder.add("ops.reshape", made, newshape=builder.tensor(x).shape, title="shaped")
    weight, bias = (
        o and builder.add("ops.reshape", o, newshape=scale, title=t) for o, t in ((weight, "scale"), (bias, "shift"))
    )
    if weight is None or bias is None:
        return builder.finish("ops.multiply" if weight else "ops.add", made, weight or bias)
    return builder.finish("ops.add", builder.add("ops.multiply", made, weight, title="scaled"), bias)


def _weight_norm(builder: Builder, node: Node) -> list[Node]:
    """A direction of unit length per slice along an axis, times its length."""
    direction, length = node.used
    rank = builder.tensor(direction).rank
    axes = tuple(axis for axis in range(rank) if axis != axis_of(node, rank))
    squares = builder.add("ops.sum", builder.add("ops.square", direction), axis=axes, keepdims=True)
    scale = builder.add("ops.divide", length, builder.add("ops.sqrt", squares))
    return builder.finish("ops.multiply", direction, scale)


def _upsampled(builder: Builder, node: Node) -> list[Node] | None:
    """Nearest neighbours at a whole factor are repetitions."""
    x = node.used[0]
    held, wanted = builder.tensor(x).shape, node.tensor.shape
    factors = [
        None if isinstance(h, Expr) or isinstance(w, Expr) or w % h else w // h
        for h, w in zip(held, wanted, strict=True)
    ]
    spatial = factors[2:]
    if None in spatial:
        return None
    for axis, factor in enumerate(spatial[:-1], 2):
        x = builder.add("ops.repeat", x, repeats=factor, axis=axis)
    return builder.finish("ops.repeat", x, repeats=spatial[-1], axis=len(held) - 1)


def _each(node: Node, name: str, rank: int, default: int = 1) -> tuple:
    """An attribute that is one number or one per axis, as one per axis."""
    value = node.attrs.get(name, default)
    values = value if isinstance(value, tuple) else (value,)
    return values * rank if len(values) == 1 else values


def _channels_last(builder: Builder, x: str, rank: int) -> str:
    return builder.add("ops.transpose", x, axes=(0, *range(2, rank + 2), 1), title="last")


def _channels_first(builder: Builder, x: str, rank: int) -> list[Node]:
    return builder.finish("ops.transpose", x, axes=(0, rank + 1, *range(1, rank + 1)))


def _padded(builder: Builder, x: str, pairs: tuple, fill: float = 0.0) -> str:
    if not any(any(pair) for pair in pairs):
        return x
    attrs: dict[str, Any] = {"constant_values": fill} if fill else {}
    return builder.add("ops.pad", x, pad_width=((0, 0), *pairs, (0, 0)), title="padded", **attrs)


_LOWERINGS = {
    **{f"aten.conv{rank}d": _conv for rank in (1, 2, 3)},
    **{f"aten.conv_transpose{rank}d": _conv_transpose for rank in (1, 2, 3)},
    **{f"aten.max_pool{rank}d": _pool("ops.max_pool", rank, float("-inf")) for rank in (1, 2, 3)},
    **{f"aten.avg_pool{rank}d": _pool("ops.average_pool", rank, 0.0) for rank in (1, 2, 3)},
    **{f"aten.adaptive_avg_pool{rank}d": _adaptive_average(rank) for rank in (1, 2, 3)},
    **{f"aten.upsample_nearest{rank}d": _upsampled for rank in (1, 2, 3)},
    "aten.group_norm": _group_norm,
    "aten.layer_norm": _layer_norm,
    "aten._weight_norm": _weight_norm,
}
