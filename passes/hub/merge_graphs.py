"""Merge graphs that compute the same."""

from collections.abc import Sequence
from dataclasses import replace

from hf2khc.ir.expr import Expr
from hf2khc.ir.graph import Graph, Node, Program

# What KerasHub calls what differs from layer to layer.
_WORDS = {
    "window": "sliding_window_size", "max_wavelength": "rope_max_wavelength", "scaling_factor": "rope_scaling_factor"
}  # fmt: skip


def merge_graphs(program: Program) -> Program:
    """One Graph per distinct module computation: layers `h.0` .. `h.23` become one Graph called 24 times.

    Graphs are equal when their nodes are, one by one, up to names of values; where only attributes differ (a window, an
    index) the value becomes a parameter of the graph, given by each call.

    Before:

        graph Block(%x: f32[batch, 8]) {
          %a: f32[batch, 8] = ops.multiply(%x, x2=2.0)
          return %a
        }

        graph Block_1(%x: f32[batch, 8]) of Block {
          %a: f32[batch, 8] = ops.multiply(%x, x2=3.0)
          return %a
        }

        graph Model(%x: f32[batch, 8]) {
          %b: f32[batch, 8] = call(%x, graph="Block", path="b")
          %c: f32[batch, 8] = call(%b, graph="Block_1", path="c")
          return %c
        }

        entry Model

    After:

        graph Block<x2>(%x: f32[batch, 8]) {
          %a: f32[batch, 8] = ops.multiply(%x, x2=x2)
          return %a
        }

        graph Model(%x: f32[batch, 8]) {
          %b: f32[batch, 8] = call(%x, graph="Block", path="b", x2=2.0)
          %c: f32[batch, 8] = call(%b, graph="Block", path="c", x2=3.0)
          return %c
        }

        entry Model
    """
    merged = _Merged()
    for graph in program.callees_first():
        merged.add(graph)
    return program.with_graphs(merged.finished())


class _Merged:
    """Groups of graphs of one shape, callees before callers."""

    def __init__(self):
        self.groups: dict[tuple, list[Graph]] = {}
        self.group_of: dict[str, list[Graph]] = {}

    def add(self, graph: Graph) -> None:
        group = self.groups.setdefault(self._shape(graph), [])
        group.append(graph)
        self.group_of[graph.name] = group

    def _shape(self, graph: Graph) -> tuple:
        """What graphs of one group have in common: all but names and values of attributes."""
        order = _canonical(graph)
        index = {node.name: i for i, node in enumerate(order)}
        symbols = _numbered_symbols(graph)
        return (
            graph.cls,
            tuple(self._node_shape(node, index, symbols) for node in order),
            tuple(index[o] for o in graph.outputs),
        )

    def _node_shape(self, node: Node, index: dict[str, int], symbols: dict[str, int]) -> tuple:
        callee = self.group_of[str(node.attrs["graph"])][0].name if "graph" in node.attrs else None
        return (
            node.op,
            node.name if node.name.startswith("@") else None,
            tuple(o if o is None else index[o] for o in node.operands),
            tuple(sorted((k, v) for k, v in node.attrs.items() if isinstance(v, str) and k != "graph")),
            tuple(sorted(node.attrs)),
            callee,
            _type_shape(node.type, symbols),
        )

    def finished(self) -> list[Graph]:
        graphs = []
        given: dict[str, dict[str, object]] = {}
        for group in self.groups.values():
            group = [_with_calls(graph, self.group_of, given) for graph in group]
            base, values = _parametrised(group)
            graphs.append(base)
            for graph, value in zip(group, values, strict=True):
                given[graph.name] = value
        return graphs


def _canonical(graph: Graph) -> list[Node]:
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


def _type_shape(type_, symbols: dict[str, int]) -> tuple:
    if isinstance(type_, tuple):
        return tuple(_type_shape(t, symbols) for t in type_)
    return (type_.dtype, tuple(d if isinstance(d, int) else _rename(d, symbols) for d in type_.shape))


def _rename(dim: Expr, symbols: dict[str, int]) -> str:
    """Symbols numbered as the inputs bring them: a norm over `seq` and one over `decoder_seq` are the same computation.

    A symbol that no input brings stays what it is, for it means the caller's.
    """
    mapping = {name: Expr(f"s{symbols[name]}") for name in sorted(dim.names) if name in symbols}
    return str(dim.substitute(mapping))


def _numbered_symbols(graph: Graph) -> dict[str, int]:
    symbols: dict[str, int] = {}
    for node in graph.inputs:
        for dim in node.tensor.shape:
            if isinstance(dim, Expr) and dim.names == {dim.text}:
                symbols.setdefault(dim.text, len(symbols))
    return symbols


def _with_calls(graph: Graph, group_of: dict[str, list[Graph]], given: dict[str, dict[str, object]]) -> Graph:
    """Calls pointed at the merged callee, its parameters given."""
    nodes = []
    for node in graph:
        if "graph" in node.attrs:
            callee = str(node.attrs["graph"])
            node = node.with_attrs(graph=group_of[callee][0].name, **given[callee])
        nodes.append(node)
    return graph.replaced(nodes)


def _parametrised(group: list[Graph]) -> tuple[Graph, list[dict[str, object]]]:
    """The one graph that stands for `group`, and what each member gives for its parameters."""
    base, values = group[0], [dict[str, object]() for _ in group]
    changed: list[Node] = []
    tables = [_numbered_symbols(graph) for graph in group]
    for members in zip(*map(_canonical, group), strict=True):
        node = members[0]
        differing = [k for k in node.attrs if any(m.attrs[k] != node.attrs[k] for m in members) and k != "graph"]
        attrs = dict(node.attrs)
        for key in differing:
            if _by_symbols_only(key, members, tables):
                continue
            name = _parameter_name(key, [m.attrs[key] for m in members], values)
            attrs[key] = Expr(name)
            for value, member in zip(values, members, strict=True):
                value[name] = member.attrs[key]
        changed.append(replace(node, attrs=attrs))
    by_name = {node.name: node for node in changed}
    return base.replaced([by_name[node.name] for node in base], parameters=(*base.parameters, *values[0])), values


def _by_symbols_only(key: str, members: Sequence[Node], tables: Sequence[dict[str, int]]) -> bool:
    """Whether the values differ in the names of size symbols alone, which each call binds anew."""

    def plain(value, table):
        if isinstance(value, tuple):
            return tuple(plain(v, table) for v in value)
        return _rename(value, table) if isinstance(value, Expr) else value

    return len({plain(m.attrs[key], t) for m, t in zip(members, tables, strict=True)}) == 1


def _parameter_name(key: str, column: list, values: list[dict[str, object]]) -> str:
    """A parameter that varies as another one of the same name is that one."""
    word = _WORDS.get(key, key)
    name, n = word, 1
    while name in values[0] and [v[name] for v in values] != column:
        name, n = f"{word}_{n}", n + 1
    return name
