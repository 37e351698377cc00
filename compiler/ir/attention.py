"""Where the attention of a layer is, and what its operands are."""

from collections.abc import Iterable

import networkx as nx

from hf2khc.ir.graph import Graph, Node

ROLES = ("query", "key", "value")
PROJECTIONS = ("layers.Dense", "layers.EinsumDense")


def attention(graph: Graph) -> tuple[str, ...] | None:
    """Query, key, value and result of the one attention of a graph, `None` where it has none or several."""
    found = attentions(graph)
    return found[0] if len(found) == 1 else None


def attentions(graph: Graph) -> list[tuple[str, ...]]:
    """Query, key, value and result of each attention of a graph: Keras's own, or products around a softmax."""
    found = [(*node.used[:3], node.name) for node in graph.of("ops.dot_product_attention")]
    for softmax in graph.of("ops.softmax"):
        scores, product = _product(graph, softmax.name, up=True), _product(graph, softmax.name, up=False)
        if scores and product and len(product.used) == 2:
            found.append((*scores.used, product.used[1], product.name))
    return found


def behind(graph: Graph, operands: Iterable[str]) -> list[frozenset[str]]:
    """For each operand of an attention the values that it is made from, itself among them."""
    return [frozenset({operand, *nx.ancestors(graph.nx, operand)}) for operand in operands]


def scores(node: Node) -> str:
    """The operand that carries the scores through an operation on them."""
    return node.used[1 if node.op == "ops.where" and len(node.used) > 1 else 0]


def _product(graph: Graph, name: str, up: bool) -> Node | None:
    """The matrix product before or after a softmax, with only operations on the scores between."""
    node = graph[name]
    while node.op not in ("ops.matmul", "ops.einsum"):
        steps = [graph[scores(node)]] if up and node.used else [] if up else graph.users(node.name)
        if len(steps) != 1 or steps[0].level not in ("ops", "layers"):
            return None
        node = steps[0]
    return node
