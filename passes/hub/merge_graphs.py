"""Merge graphs that compute the same."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from hf2khc.ir.expr import Expr
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.passes.hub.merging import Merging, canonical, numbered_dim, numbered_symbols

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
    merging = Merging(_pattern, _parametrised)
    for graph in program.callees_first():
        merging.add(graph)
    return program.with_graphs(merging.finished())


def _pattern(graph: Graph, node: Node, symbols: Mapping[str, int]) -> Hashable:
    """All but the values of attributes that are no words."""
    words = sorted((k, v) for k, v in node.attrs.items() if isinstance(v, str) and k != "graph")
    return tuple(words), _type_shape(node.type, symbols)


def _type_shape(type_, symbols: Mapping[str, int]) -> tuple:
    if isinstance(type_, tuple):
        return tuple(_type_shape(t, symbols) for t in type_)
    return (type_.dtype, tuple(d if isinstance(d, int) else numbered_dim(d, symbols) for d in type_.shape))


def _parametrised(group: Sequence[Graph]) -> tuple[Graph, list[dict[str, object]]]:
    """The one graph that stands for `group`, and what each member gives for its parameters."""
    base, values = group[0], [dict[str, object]() for _ in group]
    changed: list[Node] = []
    tables = [numbered_symbols(graph) for graph in group]
    for members in zip(*map(canonical, group), strict=True):
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
        return numbered_dim(value, table) if isinstance(value, Expr) else value

    return len({plain(m.attrs[key], t) for m, t in zip(members, tables, strict=True)}) == 1


def _parameter_name(key: str, column: list, values: list[dict[str, object]]) -> str:
    """A parameter that varies as another one of the same name is that one."""
    word = _WORDS.get(key, key)
    name, n = word, 1
    while name in values[0] and [v[name] for v in values] != column:
        name, n = f"{word}_{n}", n + 1
    return name
