"""Programs of one architecture at several sizes, walked in lockstep: one program over config fields."""

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hf2khc.driver.raise_parameters import raise_parameters
from hf2khc.driver.search import Search
from hf2khc.ir.graph import CALLS, Graph, Node, Program, lettered
from hf2khc.ir.types import Differs, Tensor, Type


@dataclass(frozen=True)
class Generalised:
    """A program whose attributes are expressions over config fields.

    Args:
        program: the real program, generalised; equal to it in every number at the real config.
        reasons: why the program does not follow the config in some place; empty where it does everywhere.
        aligned: whether the twins are counterparts of the real program.
    """

    program: Program
    reasons: tuple[str, ...] = ()
    aligned: bool = True


def generalise(
    real: Program, twins: Sequence[Program], fields: Mapping[str, tuple[Any, ...]], layers: Collection[str] = ()
) -> Generalised:
    """The real program with each number that differs in a twin as the smallest expression that gives all of them.

    Args:
        real: the program at the real config.
        twins: programs of the same model class at other configs. One number that happens to fit in one twin is
            unlikely to fit in two.
        fields: dotted config field (`config.hidden_size`) to its values in the real config and in each twin's.
        layers: those of them that count layers.
    """
    if not twins:
        return Generalised(real)
    given = real
    real, *twins = raise_parameters((real, *twins))
    names, differing = _aligned((real, *twins))
    if (real.entry,) in names:
        return Generalised(given, differing, aligned=False)
    search = Search(fields, layers=frozenset(layers))
    graphs = _graphs((real, *twins), names, search)
    if search.unexplained:
        # A number may be a sum of others that only came after it.
        search.unexplained.clear()
        graphs = _graphs((real, *twins), names, search)
    reasons = (*differing, *dict.fromkeys(search.unexplained))
    return Generalised(replace(real, graphs=graphs), reasons, aligned=not differing)


def _graphs(programs: Sequence[Program], names: Mapping[tuple[str, ...], str], search: Search) -> dict[str, Graph]:
    """The graphs of the first program, with its numbers as expressions."""
    graphs = {}
    for group, name in names.items():
        if name in graphs:
            continue
        counterparts = [program.graphs[one] for program, one in zip(programs, group, strict=False)]
        nodes = _nodes(counterparts, search, name, name == programs[0].entry, names)
        graphs[name] = counterparts[0].replaced(nodes, name=name)
    return graphs


def difference(programs: Sequence[Program]) -> str:
    """Why programs are no counterparts of one another; empty where they are."""
    _, differing = _aligned(raise_parameters(programs))
    return differing[0] if differing else ""


class _Differs(Exception):
    """A twin is no counterpart of the real program; the message says where."""


def _aligned(programs: Sequence[Program]) -> tuple[dict[tuple[str, ...], str], tuple[str, ...]]:
    """The graphs that the same calls reach, one of each program, with the name of what they stand for together.

    One graph of a program may stand beside several of another, whose sizes differ only there. One that is computed
    another way in a twin stands alone, with all it calls.

    Returns:
        The names, by group, and why the graphs that stand alone do.
    """
    groups: dict[tuple[str, ...], None] = {}
    alone: dict[tuple[str, ...], str] = {}

    def visit(group: tuple[str, ...]) -> None:
        if group in groups or group in alone:
            return
        try:
            called = _called([program.graphs[name] for program, name in zip(programs, group, strict=False)])
        except _Differs as found:
            alone[group] = str(found)
            return visit(group[:1])
        for callees in called:
            visit(callees)
        groups[group] = None

    visit(tuple(program.entry for program in programs))
    order = {name: place for place, name in enumerate(programs[0].graphs)}
    names = _named(sorted(groups, key=lambda group: (order[group[0]], -len(group))))
    return names | {group: names[group[:1]] for group in alone}, tuple(dict.fromkeys(alone.values()))


def _called(graphs: Sequence[Graph]) -> list[tuple[str, ...]]:
    """The graphs that counterparts call, beside one another.

    Raises:
        _Differs: they are no counterparts.
    """
    shapes = [_shape(graph) for graph in graphs]
    for shape in shapes[1:]:
        if shape != shapes[0]:
            raise _Differs(f"the twin computes {graphs[0].name} another way: {_first_difference(shapes[0], shape)}")
    calls = (nodes for nodes in zip(*graphs, strict=True) if nodes[0].op in CALLS)
    return [callees for nodes in calls for callees in _callees(nodes)]


def _callees(nodes: tuple[Node, ...]) -> Iterable[tuple[str, ...]]:
    """The graphs that calls run, or loops in each iteration, beside one another."""
    kinds = [given if isinstance(given, tuple) else (given,) for given in (node.attrs["graph"] for node in nodes)]
    if len({len(names) for names in kinds}) > 1:
        raise _Differs(f"the twin has other modules: {kinds[0]} against {next(k for k in kinds if k != kinds[0])}")
    return zip(*kinds, strict=True)  # type: ignore[arg-type]


def _named(groups: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """The real name; where that stands for several, those in the twin, which tell them apart.

    Groups come with the callees first, those that stand alone behind others of their name.
    """
    shared = Counter(group[0] for group in groups)
    taken, names = {name for name, count in shared.items() if count == 1}, {}
    for group in groups:
        name = group[0]
        if shared[name] > 1:
            name = group[1] if group[1:] and group[1] not in taken else lettered(group[0], taken)
            taken.add(name)
        names[group] = name
    return names


def _first_difference(a: list, b: list) -> str:
    return next((f"{x} against {y}" for x, y in itertools.zip_longest(a, b) if x != y), "")


def _shape(graph: Graph) -> list[tuple]:
    order = {name: i for i, name in enumerate(graph.nodes)}
    return [
        (node.op, tuple(o if o is None else order.get(o) for o in node.operands), tuple(node.attrs)) for node in graph
    ]


def _nodes(
    counterparts: Sequence[Graph], search: Search, graph: str, is_entry: bool, names: Mapping[tuple[str, ...], str]
) -> list[Node]:
    """The nodes of a graph over config fields."""
    search.parts.clear()
    # Twice, as what a size is the sum of may stand behind it; what was not explained at first is said once.
    said = len(search.unexplained)
    for _ in range(2):
        del search.unexplained[said:]
        found = [_node(nodes, search, graph, is_entry, names) for nodes in zip(*counterparts, strict=True)]
    return found


def _node(
    nodes: tuple[Node, ...], search: Search, graph: str, is_entry: bool, names: Mapping[tuple[str, ...], str]
) -> Node:
    real = nodes[0]
    place = f"{graph}.{real.name}"
    attrs = {
        key: search.value(tuple(n.attrs[key] for n in nodes), f"{place}.{key}") for key in real.attrs if key != "graph"
    }
    if "graph" in real.attrs:
        called = [names[callees] for callees in _callees(nodes)]
        attrs = {"graph": tuple(called) if isinstance(real.attrs["graph"], tuple) else called[0], **attrs}
    # What is computed has the size it has: of one that nothing explains Keras is told nothing.
    typed = place if real.op in ("param", "const") or (real.op == "input" and is_entry) else ""
    return replace(real, attrs=attrs, type=_type(tuple(n.type for n in nodes), search, typed))


def _type(types: tuple[Type, ...], search: Search, place: str) -> Type:
    if isinstance(types[0], tuple):
        return tuple(_type(parts, search, place) for parts in zip(*types, strict=True))  # type: ignore[arg-type, misc]
    shapes = tuple(t.shape for t in types if isinstance(t, Tensor))
    dims = zip(search.value(shapes, place), *shapes, strict=True)
    return Tensor(types[0].dtype, tuple(Differs(d) if type(d) is int and {*given} != {d} else d for d, *given in dims))
