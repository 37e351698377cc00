"""Lower batch normalisation, in either of torch's forms."""

from typing import Any

from hf2khc.ir.graph import Node, Program
from hf2khc.passes.core.lowering import Builder, flag, lower


def lower_normalization(program: Program) -> Program:
    """Turn batch normalisation with saved statistics into a layer, or into an operation where no layer has the weights.

    Before:

        graph Norm(%x: f32[batch, 6, 8]) {
          param @w: f32[6]
          param @b: f32[6]
          param @m: f32[6]
          param @v: f32[6]
          %y: f32[batch, 6, 8] = aten.batch_norm(%x, @w, @b, @m, @v, training=false, momentum=0.1, eps=0.01, cudnn_enabled=true)
          return %y
        }

        entry Norm

    After:

        graph Norm(%x: f32[batch, 6, 8]) {
          param @w: f32[6]
          param @b: f32[6]
          param @m: f32[6]
          param @v: f32[6]
          %y: f32[batch, 6, 8] = layers.BatchNormalization(%x, @w, @b, @m, @v, axis=1, momentum=0.9, epsilon=0.01)
          return %y
        }

        entry Norm
    """  # noqa: E501
    return lower(program, "lower_normalization", _OPS, _ITEMS)


def _batch_norm(builder: Builder, node: Node) -> list[Node] | None:
    if not flag(node, "training"):
        return _normalized(builder, node)
    x, weight, bias, mean, variance = (*node.operands, *(None,) * 5)[:5]
    if mean is not None or variance is not None:
        return None  # they would change with every call
    rank = builder.tensor(x).rank
    attrs: dict[str, Any] = {"axis": tuple(axis for axis in range(rank) if axis != 1), "keepdims": True}
    # Spelt out: what is normalised may be a kernel, and this is what a weight transform knows.
    centered = builder.add("ops.subtract", x, builder.add("ops.mean", x, **attrs), title="centered")
    variance = builder.add("ops.mean", builder.add("ops.square", centered), title="variance", **attrs)
    shifted = builder.add("ops.add", variance, None, x2=node.attrs["eps"])
    scale = builder.add("ops.rsqrt", shifted, title="scale")
    column = (1, -1, *(1,) * (rank - 2))
    weight, bias = (w and builder.add("ops.reshape", w, newshape=column, title="column") for w in (weight, bias))
    if weight is not None:
        scale = builder.add("ops.multiply", scale, weight, title="scale")
    if bias is None:
        return builder.finish("ops.multiply", centered, scale)
    return builder.finish("ops.add", builder.add("ops.multiply", centered, scale), bias)


def _functional_batch_norm(builder: Builder, producer: Node) -> list[Node]:
    """One result of the form with several; where nothing is trained the saved statistics are empty."""
    if builder.root.attrs["index"] != 0:
        return builder.finish("ops.zeros", shape=(0,), dtype=builder.root.tensor.dtype)
    return _normalized(builder, producer)


def _normalized(builder: Builder, node: Node) -> list[Node]:
    x, weight, bias, mean, variance = (*node.operands, *(None,) * 5)[:5]
    epsilon, momentum = node.attrs["eps"], node.attrs["momentum"]
    weights = (weight, bias, mean, variance)
    if isinstance(momentum, float) and all(w is not None and builder.graph[w].op == "param" for w in weights):
        # Keras's momentum is what stays of the statistics, torch's what is new in them.
        kept = {"momentum": round(1 - momentum, 12), "epsilon": epsilon}
        axis = {} if builder.root.tensor.rank == 2 else {"axis": 1}
        return builder.finish("layers.BatchNormalization", x, *weights, **axis, **kept)
    return builder.finish("ops.batch_normalization", x, mean, variance, None, bias, weight, axis=1, epsilon=epsilon)


_OPS = {"aten.batch_norm": _batch_norm}
_ITEMS = {"aten._native_batch_norm_legit_no_training": _functional_batch_norm}
