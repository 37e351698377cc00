"""What a derived graph calls: layers, derived themselves, given what each of them needs."""

from dataclasses import replace
from typing import TYPE_CHECKING

from hf2khc.driver.decode_positions import HERE, NoCache, Places
from hf2khc.ir.expr import names_of
from hf2khc.ir.graph import Graph, Node
from hf2khc.ir.types import Tensor, tensors

if TYPE_CHECKING:
    from hf2khc.driver.decode_graph import DerivedGraph


class Calls:
    """The calls of a graph.

    Args:
        owner: the graph while it is derived.
    """

    def __init__(self, owner: "DerivedGraph"):
        self.owner = owner
        # The calls of what has a cache, each with the graph that is called.
        self.cached: dict[str, DerivedGraph] = {}

    def value(self, node: Node, keys: Places) -> str:
        """The value of a call, a loop, or an item of one."""
        if node.op == "item":
            if keys:
                raise NoCache(f"%{node.name} of {self.owner.graph.name} is needed at all positions")
            return self.owner.add(replace(node, operands=(self.owner.want(node.used[0], HERE),)))
        inner, given = self._callee(node, keys)
        if node.op == "loop" and any(given[: int(str(node.attrs["carry"]))]):
            raise NoCache(f"the layers of {node.attrs['path']} need each other at all positions")
        names = tuple(o and self.owner.want(o, places) for o, places in zip(node.operands, given, strict=True))
        names += tuple(self._lent(name) for name in inner.lent.names)
        if inner.is_cached:
            self._keep(node, inner)
        self.owner.starts |= inner.is_indexed
        return self.owner.add(replace(self.owner.typed(node, keys), operands=names))

    def _keep(self, node: Node, inner: "DerivedGraph") -> None:
        if node.op == "loop" and not self.owner.is_entry:
            raise NoCache(f"{self.owner.graph.name} has several layers that cache")
        self.cached[node.name] = inner

    def _callee(self, node: Node, keys: Places) -> tuple["DerivedGraph", list[Places]]:
        """What a node calls, derived, and at which positions its operands are there."""
        results = (keys,) if isinstance(node.type, Tensor) else (HERE,) * len(tensors(node.type))
        # The model itself computes with no positions: what is there at all of them, a layer is given so.
        whole = self.owner.given if self.owner.is_entry else {}
        given = [whole.get(operand or "", HERE) for operand in node.operands]
        for _ in range(2):
            found = [self._derived(node, callee, results, given) for callee in self.owner.derivation.callees(node)]
            # Kinds of layers are given the same, whichever of them needs it.
            given = [frozenset().union(*places) for places in zip(*map(_given, found), strict=True)]
        if any(inner.is_cached != found[0].is_cached for inner in found):
            raise NoCache(f"the layers of {node.attrs['path']} do not all cache something")
        if any(inner.lent.names != found[0].lent.names for inner in found):
            raise NoCache(f"the layers of {node.attrs['path']} do not all count positions")
        return found[0], given

    def _derived(self, node: Node, callee: Graph, results: tuple[Places, ...], given: list[Places]) -> "DerivedGraph":
        names = [taken.name for taken in callee.inputs]
        data = frozenset(name for name, o in zip(names, node.operands, strict=True) if o in self.owner.data)
        least = {name: places for name, places in zip(names, given, strict=True) if places and name not in data}
        return self.owner.derivation.derived(callee, self._symbol(node, callee), data, results, least)

    def _symbol(self, node: Node, callee: Graph) -> str:
        """What the called graph calls the number of positions; empty where it sees none."""
        found: set[str] = set()
        positions, graph = self.owner.positions, self.owner.graph
        for parameter, operand in zip(callee.inputs, node.operands, strict=True):
            for axis in positions.axes(operand) if operand else HERE:
                inner, outer = parameter.tensor.shape[axis], graph[operand or ""].tensor.shape[axis]
                # A product of sizes, such as tokens of all sequences in one row, is spelt alike on both sides.
                found |= {positions.symbol} if str(inner) == str(outer) else names_of(inner)
        if len(found) > 1:
            raise NoCache(f"{callee.name} takes positions of several sequences")
        return next(iter(found), "")

    def _lent(self, name: str) -> str:
        """An input of the model, for a layer that reads a size from it."""
        if not self.owner.is_entry:
            return self.owner.lent.name(name)
        return self.owner.want(name, HERE if name in self.owner.data else self.owner.positions.axes(name))


def _given(graph: "DerivedGraph") -> list[Places]:
    """At which positions a graph's inputs are there."""
    return [graph.given.get(node.name, HERE) for node in graph.graph.inputs]
