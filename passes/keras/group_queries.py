"""Let the query heads that share a key head attend as queries of one head, so that no key is copied."""

from collections.abc import Iterator, Mapping

from hf2khc.ir.expr import Expr, simplify
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.types import Tensor

_TO_ROWS, _TO_HEADS = "b q (g r) h -> b (q r) g h", "b (q r) g h -> b q (g r) h"
# The axes of heads, and of queries in a mask.
_HEADS, _ROWS = 2, 2


def group_queries(program: Program) -> Program:
    """Turn an attention of repeated keys and values into one of as many heads as there are keys.

    Keys and values that several query heads share (Ainslie et al., 2023) are repeated for Keras, whose attention wants
    as many heads of all three. A step of a language model that is given a cache would copy all of it that way, for one
    token. A query is given its keys whichever head it stands in: the heads of a group are further queries. Runs on the
    finished program, behind the derivation of the cached step, which asks of every axis whether it holds positions.

    Before:

        graph Attention(%q: f32[batch, seq, 4, 6], %k: f32[batch, seq, 2, 6], %m: bool[batch, 1, 1, seq]) {
          %keys: f32[batch, seq, 4, 6] = ops.repeat(%k, repeats=2, axis=2)
          %y: f32[batch, seq, 4, 6] = ops.dot_product_attention(%q, %keys, %keys, _, %m)
          return %y
        }

        entry Attention

    After:

        graph Attention(%q: f32[batch, seq, 4, 6], %k: f32[batch, seq, 2, 6], %m: bool[batch, 1, 1, seq]) {
          %grouped_q: f32[batch, seq * 2, 2, 6] = ops.rearrange(%q, pattern="b q (g r) h -> b (q r) g h", g=2, r=2)
          %grouped_result: f32[batch, seq * 2, 2, 6] = ops.dot_product_attention(%grouped_q, %k, %k, _, %m)
          %y: f32[batch, seq, 4, 6] = ops.rearrange(%grouped_result, pattern="b (q r) g h -> b q (g r) h", q=seq, r=2)
          return %y
        }

        entry Attention
    """
    return program.map(_grouped)


def _grouped(graph: Graph) -> Graph:
    new = [made for node in graph.of("ops.dot_product_attention") for made in _attention(graph, node)]
    return graph.rewired(new).pruned() if new else graph


def _attention(graph: Graph, attention: Node) -> Iterator[Node]:
    """The attention of groups, and what it needs; nothing where keys are not repeated, or scores differ by head."""
    query, key, value, *added = (graph[name] if name else None for name in attention.operands)
    assert query and key and value
    shared, shared_values = _repeated(key), _repeated(value)
    if not shared or not shared_values or key.attrs["repeats"] != value.attrs["repeats"]:
        return
    if attention.attrs.get("is_causal") or any(each and each.tensor.shape[1] != 1 for each in added):
        return
    size, heads = key.attrs["repeats"], graph[shared].tensor.shape[_HEADS]
    batch, length, _, width = query.tensor.shape
    rows = simplify(f"({length}) * ({size})")

    def made(op: str, source: Node, shape: tuple, **attrs: object) -> Node:
        type_ = Tensor(source.tensor.dtype, shape)
        return _node(graph.fresh(f"grouped_{source.name}"), op, (source.name,), attrs, type_, attention)

    grouped = made("ops.rearrange", query, (batch, rows, heads, width), pattern=_TO_ROWS, g=heads, r=size)
    masks = {
        each.name: made("ops.repeat", each, _with(each.tensor.shape, rows), repeats=size, axis=_ROWS)
        for each in added
        if each and each.tensor.shape[_ROWS] != 1
    }
    yield from (grouped, *masks.values())
    spread = [masks.get(each.name, each).name if each else None for each in added]
    type_ = Tensor(attention.tensor.dtype, (batch, rows, heads, attention.tensor.shape[-1]))
    name, operands = graph.fresh("grouped_result"), (grouped.name, shared, shared_values, *spread)
    yield _node(name, attention.op, operands, attention.attrs, type_, attention)
    attrs = {"pattern": _TO_HEADS, "q": length, "r": size}
    yield _node(attention.name, "ops.rearrange", (name,), attrs, attention.tensor, attention)


def _node(name: str, op: str, operands: tuple, attrs: Mapping[str, object], type_: Tensor, attention: Node) -> Node:
    return Node(name, op, operands, attrs, type_, attention.loc, attention.origin | {"group_queries"})


def _with(shape: tuple, rows: int | Expr) -> tuple:
    return (*shape[:_ROWS], rows, *shape[_ROWS + 1 :])


def _repeated(node: Node) -> str:
    """What a value repeats every head of; empty where it repeats none."""
    return node.used[0] if node.op == "ops.repeat" and node.attrs["axis"] == _HEADS else ""
