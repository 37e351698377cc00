"""Grouping graphs that compute the same but for some values, and one graph in the place of each group."""

from collections.abc import Callable, Hashable, Mapping, Sequence

from hf2khc.ir.expr import Expr
from hf2khc.ir.graph import Graph, Node

# What the members of a group have in common in a node, beside its wiring; it is given the numbers of the symbols.
Pattern = Callable[[Graph, Node, Mapping[str, int]], Hashable]
# The one graph that stands for a group, and what each member gives for its parameters.
Parametrise = Callable[[Sequence[Graph]], tuple[Graph, list[dict[str, object]]]]


class Merging:
    """Groups of graphs of one shape, callees before callers.

    Args:
        pattern: what the nodes of a group have in common.
        parametrise: makes one graph of a group.
    """

    def __init__(self, pattern: Pattern, parametrise: Parametrise):
        self.pattern, self.parametrise = pattern, parametrise
        self.groups: dict[Hashable, list[Graph]] = {}
        self.group_of: dict[str, list[Graph]] = {}

    def add(self, graph: Graph, alone: bool = False) -> None:
        """Put a graph into the group of those of its shape, or into one of its own; what it calls was added before."""
        group = self.groups.setdefault(graph.name if alone else self._shape(graph), [])
        group.append(graph)
        self.group_of[graph.name] = group

    def _shape(self, graph: Graph) -> Hashable:
        order = canonical(graph)
        index = {node.name: i for i, node in enumerate(order)}
        symbols = numbered_symbols(graph)
        nodes = tuple((self._wiring(node, index), self.pattern(graph, node, symbols)) for node in order)
        return graph.cls, graph.parameters, nodes, tuple(index[o] for o in graph.outputs)

    def _wiring(self, node: Node, index: Mapping[str, int]) -> Hashable:
        called = node.attrs.get("graph", ())
        callees = called if isinstance(called, tuple) else (called,)
        return (
            node.op,
            node.name if node.name.startswith("@") else None,
            tuple(o if o is None else index[o] for o in node.operands),
            tuple(sorted(node.attrs)),
            tuple(self.group_of[str(name)][0].name for name in callees),
        )

    def finished(self) -> list[Graph]:
        """One graph for each group, all calls pointed at it with its parameters given."""
        graphs = []
        given: dict[str, dict[str, object]] = {}
        for group in self.groups.values():
            group = [self._with_calls(graph, given) for graph in group]
            base, values = self.parametrise(group)
            graphs.append(base)
            for graph, value in zip(group, values, strict=True):
                given[graph.name] = value
        return graphs

    def _with_calls(self, graph: Graph, given: Mapping[str, Mapping[str, object]]) -> Graph:
        nodes = []
        for node in graph:
            # Of a loop over several kinds each callee stands alone.
            if isinstance(node.attrs.get("graph"), str):
                callee = str(node.attrs["graph"])
                node = node.with_attrs(graph=self.group_of[callee][0].name, **given[callee])
            nodes.append(node)
        return graph.replaced(nodes)


def canonical(graph: Graph) -> list[Node]:
    """The nodes in an order that follows from the dataflow alone: inputs, then operands before users."""
    order: dict[str, Node] = {node.name: node for node in graph.inputs}

    def visit(name: str) -> None:
        if name not in order:
            for operand in graph[name].used:
                visit(operand)
            order[name] = graph[name]

    for name in (*graph.outputs, *graph.nodes):
        visit(name)
    return list(order.values())


def numbered_symbols(graph: Graph) -> dict[str, int]:
    """The size symbols that the inputs bring, in order."""
    symbols: dict[str, int] = {}
    for node in graph.inputs:
        for dim in node.tensor.shape:
            if isinstance(dim, Expr) and dim.names == {dim.text}:
                symbols.setdefault(dim.text, len(symbols))
    return symbols


def numbered_dim(dim: Expr, symbols: Mapping[str, int]) -> str:
    """Symbols numbered as the inputs bring them: a norm over `seq` and one over `decoder_seq` are the same computation.

    A symbol that no input brings stays what it is, for it means the caller's.
    """
    mapping = {name: Expr(f"s{symbols[name]}") for name in sorted(dim.names) if name in symbols}
    return str(dim.substitute(mapping))
