"""Drop conditions on positions that always hold."""

from collections.abc import Iterable
from dataclasses import replace

from hf2khc.ir.expr import same
from hf2khc.ir.graph import Graph, Node, Program

_SHAPING = ("ops.expand_dims", "ops.get_item", "ops.reshape", "ops.broadcast_to", "ops.cast")


def drop_true_conditions(program: Program) -> Program:
    """Take `position >= 0` out of masks.

    transformers' mask functions need a condition on the query even where there is none. Without it a mask has fewer
    axes of full length; it goes only where its users broadcast it to the same result.

    Before:

        graph Mask(%padding: bool[batch, 1, 1, seq], %scores: f32[batch, 2, seq, seq]) {
          %positions: i64[seq] = ops.arange(start=0, stop=seq, dtype="int64")
          %query: i64[1, 1, seq, 1] = ops.get_item(%positions, key=("newaxis", "newaxis", ("slice", none, none, none), "newaxis"))
          %true: bool[1, 1, seq, 1] = ops.greater_equal(%query, x2=0)
          %mask: bool[batch, 1, seq, seq] = ops.logical_and(%true, %padding)
          %y: f32[batch, 2, seq, seq] = ops.where(%mask, %scores, x2=0.0)
          return %y
        }

        entry Mask

    After:

        graph Mask(%padding: bool[batch, 1, 1, seq], %scores: f32[batch, 2, seq, seq]) {
          %y: f32[batch, 2, seq, seq] = ops.where(%padding, %scores, x2=0.0)
          return %y
        }

        entry Mask
    """  # noqa: E501
    return program.map(_dropped)


def _dropped(graph: Graph) -> Graph:
    true = {node.name for node in graph.of("ops.greater_equal") if _always(graph, node)}
    graph = _without_true_masks(graph, true)
    redirect = {}
    for node in graph.of("ops.logical_and"):
        others = [o for o in node.used if o not in true]
        if len(node.used) == 2 and len(others) == 1 and _replaceable(graph, node, others[0]):
            redirect[node.name] = others[0]
    return graph.rewired(redirect=redirect) if redirect else graph


def _without_true_masks(graph: Graph, true: set[str]) -> Graph:
    """Attention under a mask that hides nothing is attention without one."""
    new = []
    for node in graph.of("ops.dot_product_attention"):
        *rest, mask = node.operands
        if len(node.operands) == 5 and mask is not None and _shaped_from(graph, mask) in true:
            operands = rest if rest[-1] is not None else rest[:-1]
            new.append(replace(node, operands=tuple(operands), origin=node.origin | {"drop_true_conditions"}))
    return graph.rewired(new) if new else graph


def _shaped_from(graph: Graph, name: str) -> str:
    """Where the values come from, through changes of shape."""
    while graph[name].op in _SHAPING and len(graph[name].used) == 1:
        name = graph[name].used[0]
    return name


def _always(graph: Graph, node: Node) -> bool:
    """Whether the node compares a count from 0 on with 0."""
    if node.attrs.get("x2") != 0:
        return False
    source = graph[_shaped_from(graph, node.used[0])]
    start = source.attrs.get("start", 0)
    return source.op == "ops.arange" and isinstance(start, int) and start >= 0 and source.attrs.get("step", 1) == 1


def _replaceable(graph: Graph, node: Node, other: str) -> bool:
    """Whether every user gives the same with `other`, which may be smaller, in the node's place."""
    if node.name in graph.outputs or graph[other].tensor.rank != node.tensor.rank:
        return False
    return all(_tolerates(graph, node, user, other) for user in graph.users(node.name))


def _tolerates(graph: Graph, node: Node, user: Node, other: str) -> bool:
    if user.op == "ops.dot_product_attention":
        return user.operands.index(node.name) >= 3
    if user.op not in ("ops.where", "ops.logical_and", "ops.logical_or"):
        return False
    shapes = [graph[other if o == node.name else o].tensor.shape for o in user.used]
    return _broadcast(shapes) is not None and all(map(same, _broadcast(shapes) or (), user.tensor.shape))


def _broadcast(shapes: Iterable[tuple]) -> tuple | None:
    """The common shape, `None` where one dimension has two sizes other than 1."""
    shapes = list(shapes)
    rank = max(map(len, shapes))
    result = []
    for axis in range(rank):
        sizes = [s[axis - rank + len(s)] for s in shapes if axis - rank + len(s) >= 0]
        wide = [d for d in sizes if not same(d, 1)]
        if any(not same(d, wide[0]) for d in wide):
            return None
        result.append(wide[0] if wide else 1)
    return tuple(result)
