"""The order in which the outputs of a graph ask for its values."""

from collections.abc import Iterator, Sequence

from hf2khc.ir.graph import LEAVES, Graph
from hf2khc.ir.types import tensors


def asked_order(graph: Graph) -> list[str]:
    """Names of all values that an output depends on, operands before what is made of them, masks after what they mask.

    Graphs that compute the same have the same order, whatever order their nodes were in.
    """
    order: dict[str, None] = {}
    for output in graph.outputs:
        stack = [(output, _asked(graph, output))] if output not in order else []
        while stack:
            current, operands = stack[-1]
            needed = next((o for o in operands if o not in order), None)
            if needed is None:
                order[current] = None
                stack.pop()
            else:
                stack.append((needed, _asked(graph, needed)))
    return list(order)


def ordered(graph: Graph, names: Sequence[str]) -> Graph:
    """The graph with its computed values in the order of `names`; inputs, parameters and constants stay in front."""
    leaves = [node for node in graph if node.op in LEAVES]
    return graph.replaced([*leaves, *(graph[name] for name in names if graph[name].op not in LEAVES)])


def _asked(graph: Graph, name: str) -> Iterator[str]:
    return iter(sorted(graph[name].used, key=lambda o: tensors(graph[o].type)[0].dtype == "bool"))
