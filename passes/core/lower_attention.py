"""Lower torch's attention to Keras's."""

from typing import Any

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
        return None
    if not all(builder.tensor(x).rank == 4 for x in (query, key, value)):
        return _products(builder, node)
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
    """Attention of any rank, by its definition."""
    query, key, value, mask = (*node.operands, None)[:4]
    rank, width = builder.tensor(query).rank, builder.tensor(query).shape[-1]
    if flag(node, "is_causal") or flag(node, "enable_gqa") or not isinstance(width, int):
        return None
    scale = node.attrs.get("scale", width**-0.5)
    if not same(rank, builder.tensor(key).rank):
        return None
    swapped = (*range(rank - 2), rank - 1, rank - 2)
    scores = builder.add("ops.matmul", query, builder.add("ops.transpose", key, axes=swapped), title="scores")
    scores = builder.add("ops.multiply", scores, x2=scale, title="scaled")
    if mask is not None and builder.tensor(mask).dtype == "bool":
        scores = builder.add("ops.where", mask, scores, None, x2=float("-inf"), title="masked")
    elif mask is not None:
        scores = builder.add("ops.add", scores, mask, title="masked")
    weights = builder.add("ops.softmax", scores, axis=-1, title="weights")
    return builder.finish("ops.matmul", weights, value)
