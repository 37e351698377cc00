"""Let the query heads that share a key head attend as queries of one head, so that no key is copied."""

import string
from collections.abc import Mapping

from hf2khc.ir.expr import Expr, simplify
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.types import Tensor

_SWAP = (0, 1, 3, 2, 4)
# Of an einsum, for groups and for the heads of a group, those first that fit best.
_LETTERS = "gr" + string.ascii_lowercase
# The axes of heads, and of queries in a mask.
_HEADS, _ROWS = 2, 2


def group_queries(program: Program) -> Program:
    """Turn attention to repeated keys and values into one of as many heads as there are keys.

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
          %split_query: f32[batch, seq, 2, 2, 6] = ops.reshape(%q, newshape=(batch, seq, 2, 2, 6))
          %swapped_query: f32[batch, seq, 2, 2, 6] = ops.transpose(%split_query, axes=(0, 1, 3, 2, 4))
          %grouped_query: f32[batch, seq * 2, 2, 6] = ops.reshape(%swapped_query, newshape=(batch, seq * 2, 2, 6))
          %grouped_result: f32[batch, seq * 2, 2, 6] = ops.dot_product_attention(%grouped_query, %k, %k, _, %m)
          %split_result: f32[batch, seq, 2, 2, 6] = ops.reshape(%grouped_result, newshape=(batch, seq, 2, 2, 6))
          %swapped_result: f32[batch, seq, 2, 2, 6] = ops.transpose(%split_result, axes=(0, 1, 3, 2, 4))
          %y: f32[batch, seq, 4, 6] = ops.reshape(%swapped_result, newshape=(batch, seq, 4, 6))
          return %y
        }

        entry Attention
    """
    return program.map(_grouped)


def _grouped(graph: Graph) -> Graph:
    new: list[Node] = []
    for attention in graph.of("ops.dot_product_attention"):
        _group_attention(graph, attention, _Made(graph, attention, new))
    for product in graph.of("ops.einsum"):
        _group_product(graph, product, _Made(graph, product, new))
    return graph.rewired(new) if new else graph


def _group_attention(graph: Graph, attention: Node, made: "_Made") -> None:
    """Makes the attention of groups, and what it needs; not where keys are not repeated, or scores differ by head."""
    query, key, value, *added = (graph[name] if name else None for name in attention.operands)
    assert query and key and value
    shared, shared_values = _repeated(key), _repeated(value)
    if not shared or not shared_values or key.attrs["repeats"] != value.attrs["repeats"]:
        return
    if attention.attrs.get("is_causal") or any(each and not _is_one_for_all_heads(each) for each in added):
        return
    size, groups = key.attrs["repeats"], graph[shared].tensor.shape[_HEADS]
    (batch, length, heads, width), last = query.tensor.shape, attention.tensor.shape[-1]
    rows = simplify(f"({length}) * ({size})")
    split = made.reshape(query.name, "split_query", (batch, length, groups, size, width))
    grouped = made.reshape(made.swap(split, "swapped_query"), "grouped_query", (batch, rows, groups, width))
    spread = [each and made.spread(each, rows, size) for each in added]
    operands, shape = (grouped, shared, shared_values, *spread), (batch, rows, groups, last)
    result = made.add("grouped_result", attention.op, operands, Tensor(attention.tensor.dtype, shape), attention.attrs)
    split = made.reshape(result, "split_result", (batch, length, size, groups, last))
    made.reshape(made.swap(split, "swapped_result"), attention.name, (batch, length, heads, last))


def _group_product(graph: Graph, product: Node, made: "_Made") -> None:
    """Makes the product of scores or values with the heads of a group as an axis, which what is repeated has not."""
    taken, _, given = str(product.attrs["subscripts"]).partition("->")
    terms, repeated = taken.split(","), graph[product.used[-1]]
    shared = _repeated(repeated) if len(terms) == 2 and len(terms[1]) == 4 else ""
    if not shared or not all(term.count(terms[1][_HEADS]) == 1 for term in (*terms, given)):
        return
    head, size, groups = terms[1][_HEADS], repeated.attrs["repeats"], graph[shared].tensor.shape[_HEADS]
    group, member = [letter for letter in _LETTERS if letter not in taken][:2]
    first, result = (term.replace(head, group + member) for term in (terms[0], given))
    subscripts = f"{first},{terms[1].replace(head, group)}->{result}"
    other = graph[product.used[0]]
    split = made.reshape(other.name, "split_heads", _split(other.tensor.shape, terms[0].index(head), groups, size))
    shape = _split(product.tensor.shape, given.index(head), groups, size)
    type_ = Tensor(product.tensor.dtype, shape)
    made.add("grouped_product", product.op, (split, shared), type_, {"subscripts": subscripts})
    made.reshape(made.nodes[-1].name, product.name, product.tensor.shape)


def _split(shape: tuple, axis: int, groups: int | Expr, size: object) -> tuple:
    return (*shape[:axis], groups, size, *shape[axis + 1 :])


class _Made:
    """Adds the nodes in place of an attention, or of a product of one, to those of others."""

    def __init__(self, graph: Graph, attention: Node, nodes: list[Node]):
        self.graph, self.attention, self.nodes = graph, attention, nodes

    def add(self, name: str, op: str, operands: tuple, type_: Tensor, attrs: Mapping[str, object]) -> str:
        """A node; the one named as the attention takes its place."""
        loc, origin = self.attention.loc, self.attention.origin | {"group_queries"}
        name = name if name == self.attention.name else self.graph.fresh(name, {node.name for node in self.nodes})
        self.nodes.append(Node(name, op, operands, attrs, type_, loc, origin))
        return name

    def reshape(self, source: str, name: str, shape: tuple) -> str:
        type_ = Tensor(self.attention.tensor.dtype, shape)
        return self.add(name, "ops.reshape", (source,), type_, {"newshape": shape})

    def swap(self, source: str, name: str) -> str:
        """Groups and the heads of a group change places, of (batch, queries, groups, heads of a group, width)."""
        shape = next(node for node in self.nodes if node.name == source).tensor.shape
        type_ = Tensor(self.attention.tensor.dtype, tuple(shape[axis] for axis in _SWAP))
        return self.add(name, "ops.transpose", (source,), type_, {"axes": _SWAP})

    def spread(self, mask: Node, rows: int | Expr, size: object) -> str:
        """A mask of every query for all heads of a group; one of all queries as it is."""
        shape = mask.tensor.shape
        if shape[_ROWS] == 1:
            return mask.name
        type_ = Tensor(mask.tensor.dtype, (*shape[:_ROWS], rows, *shape[_ROWS + 1 :]))
        return self.add("grouped_mask", "ops.repeat", (mask.name,), type_, {"repeats": size, "axis": _ROWS})


def _is_one_for_all_heads(mask: Node) -> bool:
    return mask.tensor.rank == 4 and mask.tensor.shape[1] == 1


def _repeated(node: Node) -> str:
    """What a value repeats every head of; empty where it repeats none."""
    return node.used[0] if node.op == "ops.repeat" and node.attrs["axis"] == _HEADS else ""
