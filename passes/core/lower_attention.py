"""Lower torch's attention to Keras's."""

from typing import Any

import numpy as np

from hf2khc.ir.expr import same
from hf2khc.ir.graph import Node, Program
from hf2khc.passes.core.lowering import Builder, flag, lower

# torch has heads before the sequence, Keras behind it.
_SWAPPED = (0, 2, 1, 3)


def lower_attention(program: Program) -> Program:
    """Turn `aten.scaled_dot_product_attention` into `ops.dot_product_attention` on `(batch, seq, heads, dim)`.

    Keras groups queries over fewer keys by itself. A mask of truth values goes in as `mask`, numbers as `bias`.

    Before:

        graph Attention(%q: f32[batch, 4, seq, 8], %k: f32[batch, 4, seq, 8], %v: f32[batch, 4, seq, 8]) {
          %y: f32[batch, 4, seq, 8] = aten.scaled_dot_product_attention(%q, %k, %v, is_causal=true)
          return %y
        }

        entry Attention

    After:

        graph Attention(%q: f32[batch, 4, seq, 8], %k: f32[batch, 4, seq, 8], %v: f32[batch, 4, seq, 8]) {
          %y_query: f32[batch, seq, 4, 8] = ops.transpose(%q, axes=(0, 2, 1, 3))
          %y_key: f32[batch, seq, 4, 8] = ops.transpose(%k, axes=(0, 2, 1, 3))
          %y_value: f32[batch, seq, 4, 8] = ops.transpose(%v, axes=(0, 2, 1, 3))
          %y_attention: f32[batch, seq, 4, 8] = ops.dot_product_attention(%y_query, %y_key, %y_value, is_causal=true)
          %y: f32[batch, 4, seq, 8] = ops.transpose(%y_attention, axes=(0, 2, 1, 3))
          return %y
        }

        entry Attention
    """
    return lower(program, "lower_attention", {"aten.scaled_dot_product_attention": _attention})


def _attention(builder: Builder, node: Node) -> list[Node] | None:
    query, key, value, mask = (*node.operands, None)[:4]
    if flag(node, "dropout_p", 0.0) != 0.0:
        return _products(builder, node)
    if not all(builder.tensor(x).rank == 4 for x in (query, key, value)):
        return _products(builder, node)
    if not same(builder.tensor(key).shape[1], builder.tensor(value).shape[1]):
        # Keras groups queries over keys and values of one number only.
        key, value = (_repeated(builder, str(x), str(query)) for x in (key, value))
    operands: list[str | None] = [
        builder.add("ops.transpose", x, axes=_SWAPPED, title=title)
        for x, title in ((query, "query"), (key, "key"), (value, "value"))
    ]
    if mask is not None:
        operands += _mask_operands(builder, mask)
    attrs: dict[str, Any] = {name: node.attrs[name] for name in ("scale", "is_causal") if name in node.attrs}
    attended = builder.add("ops.dot_product_attention", *operands, title="attention", **attrs)
    return builder.finish("ops.transpose", attended, axes=_SWAPPED)


def _mask_operands(builder: Builder, mask: str) -> tuple[str | None, ...]:
    """The mask as Keras's `bias` or `mask`, with four axes."""
    type_ = builder.tensor(mask)
    if type_.rank < 4:
        mask = builder.add("ops.reshape", mask, newshape=(1,) * (4 - type_.rank) + type_.shape, title="mask")
    return (None, mask) if type_.dtype == "bool" else (mask,)


def _products(builder: Builder, node: Node) -> list[Node] | None:
    """Attention by its definition: of any rank, and with dropout, which Keras's own op does not have."""
    query, key, value, mask = (*node.operands, None)[:4]
    rank, width = builder.tensor(query).rank, builder.tensor(query).shape[-1]
    if not isinstance(width, int) or not same(rank, builder.tensor(key).rank):
        return None
    if flag(node, "enable_gqa"):
        key, value = (_repeated(builder, str(x), str(query)) for x in (key, value))
    swapped = (*range(rank - 2), rank - 1, rank - 2)
    scores = builder.add("ops.matmul", query, builder.add("ops.transpose", key, axes=swapped), title="scores")
    scores = builder.add("ops.multiply", scores, x2=node.attrs.get("scale", width**-0.5), title="scaled")
    if flag(node, "is_causal"):
        mask = _causal(builder, scores)
    if mask is not None and builder.tensor(mask).dtype == "bool":
        # The lowest number, and not minus infinity: a row of nothing else has a softmax.
        scores = builder.add("ops.where", mask, scores, None, x2=float(np.finfo("float32").min), title="masked")
    elif mask is not None:
        scores = builder.add("ops.add", scores, mask, title="masked")
    weights = builder.add("ops.softmax", scores, axis=-1, title="weights")
    if flag(node, "dropout_p", 0.0) != 0.0:
        weights = builder.add(
            "layers.Dropout", weights, rate=node.attrs["dropout_p"], title="dropout", type=builder.tensor(weights)
        )
    return builder.finish("ops.matmul", weights, value)


def _repeated(builder: Builder, heads: str, query: str) -> str:
    """Key or value heads, as often as several query heads share one."""
    ratio = int(builder.tensor(query).shape[-3]) // int(builder.tensor(heads).shape[-3])  # type: ignore[arg-type]
    return builder.add("ops.repeat", heads, repeats=ratio, axis=-3) if ratio > 1 else heads


def _causal(builder: Builder, scores: str) -> str:
    """Whether a key stands at or before its query."""
    rows, columns = builder.tensor(scores).shape[-2:]
    row, column = (
        builder.add("ops.expand_dims", builder.add("ops.arange", start=0, stop=size, dtype="int64"), axis=axis)
        for size, axis in ((rows, 1), (columns, 0))
    )
    return builder.add("ops.less_equal", column, row, title="causal_mask")
