"""What the building of a layer looks at of the shape that it is given."""

from collections.abc import Iterator

from hf2khc.ir.expr import same
from hf2khc.ir.graph import CALLS, Graph, Node, callees
from hf2khc.ir.types import Tensor, same_type
from hf2khc.write.analysis import Analysis
from hf2khc.write.layer_facts import built_axes


def read_axes(analysis: Analysis, node: Node, rank: int) -> frozenset[int]:
    """The axes of its first input that a layer, or the class of a `call` or `loop`, looks at when it is built."""
    if node.op not in CALLS:
        return built_axes(node, rank)
    graphs = [analysis.plan.program.graphs[name] for name in callees(node)]
    return frozenset(axis for graph in graphs for axis in _read(analysis, graph))


def built_operands(analysis: Analysis, graph: Graph, node: Node) -> list[Tensor]:
    """The types whose shapes a member is built with, none where it is not built."""
    if node.op in CALLS:
        names = node.operands[:1]
    elif node.op.startswith("layers.") and analysis.weights(graph, node):
        names = analysis.data(graph, node)
    else:
        names = ()
    return [graph[name].tensor for name in names if name is not None]


def _read(analysis: Analysis, graph: Graph) -> Iterator[int]:
    if not graph.inputs:
        return
    first = graph.inputs[0].tensor
    for node in analysis.printed(graph.name):
        for type_ in built_operands(analysis, graph, node):
            axes = read_axes(analysis, node, type_.rank)
            if same_type(first, type_):
                yield from axes
                continue
            for axis in axes:
                dim = type_.shape[axis]
                yield from (place for place, size in enumerate(first.shape) if same(size, dim))
