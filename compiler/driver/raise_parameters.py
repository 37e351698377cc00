"""Give programs of one architecture the same graph parameters."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hf2khc.ir.expr import Expr
from hf2khc.ir.graph import CALLS, Graph, Node, Program, callee_of, callees


def raise_parameters(programs: Sequence[Program]) -> list[Program]:
    """Each program with the graph parameters of its counterparts.

    What is one number in all layers at one config may differ from layer to layer at another: a parameter there, a
    number inside the layer here.

    Args:
        programs: of one model class at several configs.

    Returns:
        The programs; where they are no counterparts of one another, as they were.
    """
    graphs = [dict(program.graphs) for program in programs]
    for i in range(len(programs)):
        for j in range(len(programs)):
            if i != j:
                _Raising(graphs[i], graphs[j]).visit(programs[i].entry, programs[j].entry)
    return [replace(program, graphs=found) for program, found in zip(programs, graphs, strict=True)]


class _Raising:
    """Gives the graphs of one program the parameters that those of another one have."""

    def __init__(self, graphs: dict[str, Graph], others: dict[str, Graph]):
        self.graphs, self.others = graphs, others
        self.seen: set[tuple[str, str]] = set()
        self.raised: dict[tuple[str, str], Any] = {}

    def visit(self, name: str, other: str) -> None:
        if (name, other) in self.seen or not _alike(self.graphs[name], self.others[other]):
            return
        self.seen.add((name, other))
        for own, theirs in zip(tuple(self.graphs[name].nodes), self.others[other], strict=True):
            mine = self.graphs[name][own]
            if theirs.op not in CALLS or len(callees(mine)) != len(callees(theirs)):
                continue
            self._give(name, mine, theirs)
            for pair in zip(callees(mine), callees(theirs), strict=True):
                self.visit(*pair)

    def _give(self, name: str, mine: Node, theirs: Node) -> None:
        """Give a call the arguments that its counterpart has."""
        attrs = dict(mine.attrs)
        for key in theirs.attrs:
            if key not in attrs:
                pairs = zip(callees(mine), callees(theirs), strict=True)
                values = {ours: self._raise(ours, its, key) for ours, its in pairs}
                if None not in values.values():
                    attrs[key] = _argument(mine, theirs, key, values)
        if len(attrs) > len(mine.attrs):
            ordered = {key: attrs[key] for key in (*theirs.attrs, *mine.attrs) if key in attrs}
            self._replace(name, replace(mine, attrs=ordered))

    def _raise(self, name: str, other: str, parameter: str) -> Any:
        """Make a number of a graph its parameter; the number, `None` where there is not one."""
        if (name, parameter) in self.raised:
            return self.raised[name, parameter]
        graph, counterpart = self.graphs[name], self.others[other]
        if parameter not in counterpart.parameters or not _alike(graph, counterpart):
            return None
        if parameter in graph.parameters:
            return None
        sites = [
            (mine, theirs, key)
            for mine, theirs in zip(graph, counterpart, strict=True)
            for key, value in theirs.attrs.items()
            if isinstance(value, Expr) and parameter in value.names
        ]
        found = {self._number(*site, parameter) for site in sites}
        if len(found) != 1 or None in found:
            return None
        for mine, theirs, key in sites:
            node = self.graphs[name][mine.name]
            attrs = {**node.attrs, key: Expr(parameter)}
            self._replace(name, replace(node, attrs={k: attrs[k] for k in (*theirs.attrs, *attrs) if k in attrs}))
        parameters = [p for p in counterpart.parameters if p == parameter or p in graph.parameters]
        rest = [p for p in graph.parameters if p not in parameters]
        self.graphs[name] = self.graphs[name].replaced(parameters=(*parameters, *rest))
        (number,) = found
        self.raised[name, parameter] = number
        return number

    def _number(self, mine: Node, theirs: Node, key: str, parameter: str) -> Any:
        """What stands where the counterpart has its parameter."""
        if theirs.attrs[key] != Expr(parameter):
            return None
        if key not in mine.attrs and theirs.op == "call" and mine.op == "call":
            return self._raise(callee_of(mine), callee_of(theirs), key)
        value = mine.attrs.get(key)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def _replace(self, name: str, node: Node) -> None:
        graph = self.graphs[name]
        self.graphs[name] = graph.replaced([node if old.name == node.name else old for old in graph])


def _alike(a: Graph, b: Graph) -> bool:
    return [node.op for node in a] == [node.op for node in b]


def _argument(mine: Node, theirs: Node, key: str, values: dict[str, Any]) -> Any:
    """The number, or one for each iteration where the counterpart has that."""
    if mine.op == "loop" and isinstance(theirs.attrs[key], tuple):
        return tuple(values[callee_of(mine, i)] for i in range(int(str(mine.attrs["count"]))))
    return next(iter(values.values()))
