"""Graph and Program: the data every stage works on."""

import functools
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

import networkx as nx
import numpy as np

from hf2khc.diagnostics import fail
from hf2khc.ir.expr import Expr, substitute
from hf2khc.ir.node import LEAVES, Loc, Node
from hf2khc.ir.types import Tensor, Type

# Nodes that run graphs: once, once per layer, once per entry of sequences.
CALLS = ("call", "loop", "scan")

T = TypeVar("T")


class Graph:
    """A module computation: nodes in topological order over a `networkx.MultiDiGraph` (edge key = operand index).

    Args:
        name: unique in the program.
        nodes: every node, leaves included; sorted on construction, dead ones are kept (see `pruned`).
        outputs: names of the returned values.
        parameters: names of graph parameters, bound by each call.
        cls: class of the module, for names only.
    """

    def __init__(self, name: str, nodes: Iterable[Node], outputs: Iterable[str], parameters=(), cls: str = ""):
        self.name = name
        self.outputs = tuple(outputs)
        self.parameters = tuple(parameters)
        self.cls = cls or name
        self.nodes: dict[str, Node] = _sorted(_by_name(nodes, name))

    @functools.cached_property
    def nx(self) -> nx.MultiDiGraph:
        """The dataflow graph; `nx.nodes[name]["node"]` is the `Node`."""
        return _networkx(self.nodes)

    def __reduce__(self):
        return _graph, (self.name, list(self), self.outputs, self.parameters, self.cls)

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def __contains__(self, name: str) -> bool:
        return name in self.nodes

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def __len__(self) -> int:
        return len(self.nodes)

    def of(self, *ops: str) -> list[Node]:
        """The nodes whose op is one of `ops`."""
        return [node for node in self if node.op in ops]

    @functools.cached_property
    def inputs(self) -> tuple[Node, ...]:
        return tuple(self.of("input"))

    def users(self, name: str) -> list[Node]:
        """The nodes that use `name`, each once."""
        return [self.nodes[user] for user in dict.fromkeys(self.nx.successors(name))]

    def uses(self, name: str) -> int:
        """How often `name` is used, the outputs counted."""
        return self.nx.out_degree(name) + self.outputs.count(name)

    def fresh(self, base: str, taken: Iterable[str] = ()) -> str:
        """`base`, or `base_1`, `base_2` ... where that is taken."""
        return numbered(base, {*self.nodes, *taken})

    def renamed(self, names: Mapping[str, str]) -> "Graph":
        """A copy in which the nodes that `names` has go by what it gives."""
        nodes = [
            replace(
                node, name=names.get(node.name, node.name), operands=tuple(o and names.get(o, o) for o in node.operands)
            )
            for node in self
        ]
        return self.replaced(nodes, outputs=[names.get(o, o) for o in self.outputs])

    def replaced(self, nodes: Iterable[Node] | None = None, **changes) -> "Graph":
        """A copy with other nodes, name, outputs or parameters."""
        fields = {"name": self.name, "outputs": self.outputs, "parameters": self.parameters, "cls": self.cls}
        return Graph(nodes=self if nodes is None else nodes, **{**fields, **changes})

    def rewired(self, new: Iterable[Node] = (), redirect: Mapping[str, str] = MappingProxyType({})) -> "Graph":
        """A copy with `new` nodes added or put in place of those of the same name, uses redirected, dead nodes gone."""
        merged = {**self.nodes, **{node.name: node for node in new}}
        target = functools.partial(_follow, redirect)
        nodes = [
            replace(node, operands=tuple(o if o is None else target(o) for o in node.operands))
            if node.operands
            else node
            for node in merged.values()
        ]
        return self.replaced(nodes, outputs=tuple(map(target, self.outputs))).pruned()

    def behind(self, names: Iterable[str]) -> set[str]:
        """The values that `names` are computed from, themselves included."""
        wanted = set(names)
        for node in reversed(self.nodes.values()):
            if node.name in wanted:
                wanted.update(node.used)
        return wanted

    def pruned(self) -> "Graph":
        """A copy without the nodes no output depends on; inputs stay."""
        alive = self.behind(self.outputs)
        if len(alive) == len(self.nodes):
            return self
        return self.replaced([node for node in self if node.name in alive or node.op == "input"])

    def substituted(self, mapping: Mapping[str, object]) -> "Graph":
        """A copy with names replaced in every attribute and shape."""
        return self.replaced([substitute_node(node, mapping) for node in self])


def _graph(name: str, nodes: list[Node], outputs: tuple[str, ...], parameters: tuple[str, ...], cls: str) -> Graph:
    return Graph(name, nodes, outputs, parameters, cls)


def substitute_node(node: Node, mapping: Mapping[str, object]) -> Node:
    """`node` with names replaced in its attributes and shapes."""
    return replace(
        node,
        attrs={k: substitute(v, mapping) for k, v in node.attrs.items()},
        type=_substitute_type(node.type, mapping),
    )


@dataclass(frozen=True)
class Program:
    """A whole model.

    Args:
        graphs: by name.
        entry: name of the graph that is the model.
        outputs: dotted paths of the ModelOutput, one per output of the entry graph.
        constants: arrays of the `const` nodes by absolute path.
    """

    graphs: Mapping[str, Graph]
    entry: str
    outputs: tuple[str, ...] = ()
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def main(self) -> Graph:
        return self.graphs[self.entry]

    def map(self, transform) -> "Program":
        """The program with `transform(graph)` in place of every graph; those that nothing calls then are dropped."""
        return self.with_graphs(transform(graph) for graph in self.graphs.values())

    def with_graphs(self, graphs: Iterable[Graph]) -> "Program":
        """The program with these graphs and no others; those the entry cannot reach are dropped."""
        by_name = {graph.name: graph for graph in graphs}
        return replace(self, graphs={name: by_name[name] for name in callees_first(by_name, self.entry)})

    def callees_first(self) -> list[Graph]:
        """The graphs reachable from the entry, callees before callers."""
        return [self.graphs[name] for name in callees_first(self.graphs, self.entry)]


def callees_first(graphs: Mapping[str, Graph], entry: str) -> list[str]:
    """Names of the graphs reachable from `entry`, callees before callers."""
    order: dict[str, None] = {}

    def visit(name: str):
        if name not in order:
            for node in graphs[name].of(*CALLS):
                for callee in callees(node):
                    visit(callee)
            order[name] = None

    visit(entry)
    return list(order)


def callees(node: Node) -> tuple[str, ...]:
    """The graphs that a node runs, each once; a loop over several kinds of layers names one per layer."""
    given = node.attrs["graph"]
    return tuple(dict.fromkeys(map(str, given))) if isinstance(given, tuple) else (str(given),)


def callee_of(node: Node, iteration: int = 0) -> str:
    """The graph that a `call` runs, or a `loop` in an iteration, counted from 0."""
    given = node.attrs["graph"]
    return str(given[iteration % len(given)] if isinstance(given, tuple) else given)


def first_iterations(node: Node) -> dict[str, int]:
    """The graphs that a `call` or `loop` runs, each with the first iteration that runs it."""
    given = node.attrs["graph"]
    return {name: given.index(name) if isinstance(given, tuple) else 0 for name in callees(node)}


def value_name(name: str) -> str:
    """What a value is called: a parameter or constant by its path, `@norm.weight` as `norm_weight`."""
    return name.lstrip("@/").replace(".", "_")


def scan_parts(node: Node, values: Sequence[T]) -> tuple[Sequence[T], Sequence[T], Sequence[T]]:
    """What stands for the operands of a `scan`, apart: what is carried, the sequences, what every entry shares."""
    carry, over = int(node.attrs["carry"]), int(node.attrs["over"])
    return values[:carry], values[carry : carry + over], values[carry + over :]


def lettered(base: str, taken: Container[str]) -> str:
    """`base`, or `baseB`, `baseC` ... `baseZ`, `baseAA` ... where that is taken."""
    name, number = base, 1
    while name in taken:
        number += 1
        name = base + _letters(number)
    return name


def _letters(number: int) -> str:
    """B, C ... Z, AA, AB ..."""
    text = ""
    while number:
        number, letter = divmod(number - 1, 26)
        text = chr(ord("A") + letter) + text
    return text


def numbered(base: str, taken: Container[str], first: int = 1, between: str = "_") -> str:
    """`base`, or `base_1`, `base_2` ... where that is taken, counted from `first`."""
    name, number = base, first
    while name in taken:
        name = f"{base}{between}{number}"
        number += 1
    return name


def join(prefix: str, path: str) -> str:
    """A relative module or parameter path under `prefix`; `/path` is absolute already."""
    if path.startswith("/"):
        return path[1:]
    return f"{prefix}.{path}" if prefix and path else prefix or path


def _follow(redirect: Mapping[str, str], name: str) -> str:
    while name in redirect:
        name = redirect[name]
    return name


def _substitute_type(type_: Type, mapping: Mapping[str, object]) -> Type:
    if isinstance(type_, tuple):
        return tuple(_substitute_tensor(t, mapping) for t in type_)
    return _substitute_tensor(type_, mapping)


def _substitute_tensor(type_: Tensor, mapping: Mapping[str, object]) -> Tensor:
    if not type_.symbols & mapping.keys():
        return type_
    return Tensor(type_.dtype, tuple(substitute(dim, mapping) for dim in type_.shape))


def _networkx(nodes: Mapping[str, Node]) -> nx.MultiDiGraph:
    graph = nx.MultiDiGraph()
    graph.add_nodes_from((name, {"node": node}) for name, node in nodes.items())
    for node in nodes.values():
        for index, operand in enumerate(node.operands):
            if operand is not None:
                graph.add_edge(operand, node.name, key=index)
    return graph


def _by_name(nodes: Iterable[Node], graph: str) -> dict[str, Node]:
    listed = list(nodes)
    named = {node.name: node for node in listed}
    if len(named) < len(listed):
        twice = next(name for name in named if sum(node.name == name for node in listed) > 1)
        raise fail("ir-duplicate-name", f"two nodes of {graph} have the name {twice}")
    return named


def _sorted(nodes: dict[str, Node]) -> dict[str, Node]:
    """Topological order that keeps the given order wherever it can; operands that do not exist are the verifier's."""
    if _is_sorted(nodes):
        return nodes
    rank = {name: i for i, name in enumerate(nodes)}
    flow = nx.DiGraph(_networkx(nodes)).subgraph(nodes)
    try:
        return {name: nodes[name] for name in nx.lexicographical_topological_sort(flow, key=rank.__getitem__)}
    except nx.NetworkXUnfeasible:
        cycle = " -> ".join(operand for operand, _ in nx.find_cycle(flow))
        raise fail("ir-cycle", f"values depend on themselves: {cycle}") from None


def _is_sorted(nodes: Mapping[str, Node]) -> bool:
    seen: set[str] = set()
    for node in nodes.values():
        if any(operand not in seen for operand in node.used):
            return False
        seen.add(node.name)
    return True


__all__ = ["LEAVES", "Expr", "Graph", "Loc", "Node", "Program", "callees_first", "join", "numbered", "substitute_node"]
