"""Lower convolutions and the norms of images to Keras's layout, channels last."""

from typing import Any

from hf2khc.ir.expr import simplify
from hf2khc.ir.graph import Node, Program
from hf2khc.passes.core.lowering import Builder, axis_of, channels_first, channels_last, each, flag, lower, padded


def lower_convolution(program: Program) -> Program:
    """Turn convolutions into `ops.*` between two transposes; padding becomes explicit.

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
    padding, dilation = flag(node, "padding", 0), each(node, "dilation", rank)
    if padding == "same":
        sizes = (int(str(size)) for size in builder.tensor(weight).shape[2:])
        extents = [(size - 1) * step for size, step in zip(sizes, dilation, strict=True)]
        pairs = tuple((extent // 2, extent - extent // 2) for extent in extents)
    else:
        pairs = tuple((p, p) for p in ((0,) * rank if padding == "valid" else each(node, "padding", rank, 0)))
    last = padded(builder, channels_last(builder, x, rank), pairs)
    kernel = builder.add("ops.transpose", weight, axes=(*range(2, rank + 2), 1, 0), title="kernel")
    return _biased(builder, _convolved(builder, last, kernel, each(node, "stride", rank), dilation), bias, rank)


def _convolved(builder: Builder, x: str, kernel: str, strides: tuple[int, ...], dilation: tuple[int, ...]) -> str:
    attrs: dict[str, Any] = {"strides": strides, "data_format": "channels_last"}
    if any(step != 1 for step in dilation):
        attrs["dilation_rate"] = dilation
    return builder.add("ops.conv", x, kernel, **attrs)


def _biased(builder: Builder, made: str, bias: str | None, rank: int) -> list[Node]:
    """What a convolution made, with its bias and in torch's layout."""
    if bias is not None:
        made = builder.add("ops.add", made, bias, title="biased")
    return channels_first(builder, made, rank)


def _conv_transpose(builder: Builder, node: Node) -> list[Node] | None:
    x, weight, bias = (*node.operands, None)[:3]
    assert x is not None and weight is not None
    rank = builder.tensor(weight).rank - 2
    padding, strides = each(node, "padding", rank, 0), each(node, "stride", rank)
    more = (extra > pad for extra, pad in zip(each(node, "output_padding", rank, 0), padding, strict=True))
    if flag(node, "groups", 1) != 1 or any(step != 1 for step in each(node, "dilation", rank)) or any(more):
        return _spread(builder, node)
    kernel = builder.add("ops.transpose", weight, axes=(*range(2, rank + 2), 1, 0), title="kernel")
    attrs: dict[str, Any] = {"strides": strides, "data_format": "channels_last"}
    made = builder.add("ops.conv_transpose", channels_last(builder, x, rank), kernel, **attrs)
    sizes = node.tensor.shape[2:]
    ends = [simplify(f"({size}) + {pad}") for size, pad in zip(sizes, padding, strict=True)]
    if builder.tensor(made).shape[1:-1] != tuple(sizes):
        crop = tuple(("slice", pad or None, end, None) for pad, end in zip(padding, ends, strict=True))
        made = builder.add("ops.get_item", made, key=(("slice", None, None, None), *crop), title="cropped")
    return _biased(builder, made, bias, rank)


def _spread(builder: Builder, node: Node) -> list[Node] | None:
    """A transposed convolution as one of the entries spread out by the strides, with its kernel turned around.

    Keras has none of groups. Of Dumoulin and Visin (2016), A guide to convolution arithmetic, section 4.
    """
    x, weight, bias = (*node.operands, None)[:3]
    assert x is not None and weight is not None
    given, made, *kernel_size = builder.tensor(weight).shape
    sizes = [size for size in kernel_size if isinstance(size, int)]
    rank, groups = len(kernel_size), flag(node, "groups", 1)
    if len(sizes) != rank:
        return None
    strides, dilation = each(node, "stride", rank), each(node, "dilation", rank)
    pads, extras = each(node, "padding", rank, 0), each(node, "output_padding", rank, 0)
    before = [(size - 1) * step - pad for size, step, pad in zip(sizes, dilation, pads, strict=True)]
    after = [start + extra - stride + 1 for start, extra, stride in zip(before, extras, strides, strict=True)]
    if min(*before, *after) < 0:
        return None
    last = _with_gaps(builder, channels_last(builder, x, rank), strides)
    last = padded(builder, last, tuple(zip(before, after, strict=True)))
    kernel = builder.add("ops.flip", weight, axis=tuple(range(2, rank + 2)), title="turned")
    if groups == 1:
        kernel = builder.add("ops.transpose", kernel, axes=(*range(2, rank + 2), 0, 1), title="kernel")
    else:
        share = simplify(f"({given}) // {groups}")
        kernel = builder.add("ops.reshape", kernel, newshape=(groups, share, made, *sizes), title="grouped")
        kernel = builder.add("ops.transpose", kernel, axes=(*range(3, rank + 3), 1, 0, 2), title="last")
        shape = (*sizes, share, simplify(f"({made}) * {groups}"))
        kernel = builder.add("ops.reshape", kernel, newshape=shape, title="kernel")
    return _biased(builder, _convolved(builder, last, kernel, (1,) * rank, dilation), bias, rank)


def _with_gaps(builder: Builder, x: str, strides: tuple[int, ...]) -> str:
    """Zeros behind each entry along the axes between the first and the last, so that the next is a stride away."""
    batch, *sizes, channels = builder.tensor(x).shape
    if all(stride == 1 for stride in strides):
        return x
    apart = [part for size in sizes for part in (size, 1)]
    gaps = [pair for stride in strides for pair in ((0, 0), (0, stride - 1))]
    x = builder.add("ops.reshape", x, newshape=(batch, *apart, channels), title="apart")
    x = builder.add("ops.pad", x, pad_width=((0, 0), *gaps, (0, 0)), title="gaps")
    wider = [simplify(f"({size}) * {stride}") for size, stride in zip(sizes, strides, strict=True)]
    return builder.add("ops.reshape", x, newshape=(batch, *wider, channels), title="spread")


def _group_norm(builder: Builder, node: Node) -> list[Node]:
    x, weight, bias = (*node.operands, None, None)[:3]
    assert x is not None
    shape = builder.tensor(x).shape
    groups = node.attrs["num_groups"]
    if all(w is not None and builder.graph[w].op == "param" for w in (weight, bias)):
        attrs = {"groups": groups, "axis": 1, "epsilon": flag(node, "eps", 1e-05)}
        return builder.finish("layers.GroupNormalization", x, weight, bias, **attrs)
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


_LOWERINGS = {
    **{f"aten.conv{rank}d": _conv for rank in (1, 2, 3)},
    **{f"aten.conv_transpose{rank}d": _conv_transpose for rank in (1, 2, 3)},
    "aten.group_norm": _group_norm,
    "aten.layer_norm": _layer_norm,
    "aten._weight_norm": _weight_norm,
}
