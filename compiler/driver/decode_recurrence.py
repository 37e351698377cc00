"""A linear recurrence that is computed at once, as a product with the decay from every entry to every later one."""

from dataclasses import dataclass

from hf2khc.ir.graph import Graph, Node

_MINUS_INFINITY = float("-inf")


@dataclass(frozen=True)
class Recurrence:
    """The sum over all entries `x[j]` up to `i`, each times `exp(a[j + 1] + ... + a[i])`, with zeros in front of them.

    Mamba 2 carries its states from chunk to chunk so (Dao and Gu 2024, https://arxiv.org/abs/2405.21060, listing 1).
    Where it begins later, what it gave last stands in the place of the zeros.

    Args:
        inside: the names of what is computed of the decays and sizes alone, to the factors of the product.
        decays: the value `a`, without the zero in front.
        joined: the concatenation of zeros and entries.
        axis: of the entries, in it and in the result.
    """

    inside: tuple[str, ...]
    decays: str
    joined: Node
    axis: int


def recurrence(graph: Graph, node: Node) -> Recurrence | None:
    """What a product of two values is, if it is a recurrence.

    Args:
        graph: the graph.
        node: an `ops.einsum`.
    """
    terms, _, result = str(node.attrs["subscripts"]).replace(" ", "").partition("->")
    given = terms.split(",")
    for factor in range(len(given) if len(given) == 2 else 0):
        decay, entries = given[factor], given[1 - factor]
        summed = [letter for letter in decay if letter not in result]
        joined = graph[node.operands[1 - factor] or ""]
        if len(summed) != 1 or summed[0] not in entries or joined.op != "ops.concatenate":
            continue
        axis = entries.index(summed[0])
        inside = _Inside(graph)
        last = inside.decays(node.operands[factor] or "", decay, (result[axis], summed[0]))
        alike = entries.replace(summed[0], result[axis]) == result
        if last is not None and alike and int(joined.attrs.get("axis", 0)) % joined.tensor.rank == axis:
            return Recurrence(tuple(inside.names), last, joined, axis)
    return None


class _Inside:
    """Follows the factors of a product back to the decays that they are made of."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.names: list[str] = []

    def decays(self, name: str, letters: str, axes: tuple[str, str]) -> str | None:
        """The decays; None where the factors are made of something else.

        Args:
            name: the factors.
            letters: of their axes.
            axes: the letters of the later entry and of the earlier one.
        """
        node = self._taken(name, "ops.transpose")
        if node is not None:
            order = node.attrs.get("axes", tuple(reversed(range(node.tensor.rank))))
            letters = "".join(letters[list(order).index(axis)] for axis in range(len(letters)))
            name = node.used[0]
        if tuple(letters[-2:]) != axes:
            return None
        name = self._along(name, ("ops.exp", {}))
        name = self._masked(name, _MINUS_INFINITY, 0)
        name = self._along(name, ("ops.cumsum", {"axis": len(letters) - 2}))
        name = self._masked(name, 0, -1)
        name = self._along(name, ("ops.broadcast_to", {}), ("ops.expand_dims", {"axis": len(letters) - 1}))
        node = self._taken(name, "ops.pad")
        if node is None or node.attrs["pad_width"] != (*((0, 0),) * (node.tensor.rank - 1), (1, 0)):
            return None
        return node.used[0]

    def _taken(self, name: str, op: str) -> Node | None:
        node = self.graph[name] if name else None
        if node is None or node.op != op:
            return None
        self.names.append(name)
        return node

    def _along(self, name: str, *steps: tuple[str, dict[str, object]]) -> str:
        """What a chain of operations begins with; empty where there is another chain."""
        for op, attrs in steps:
            node = self._taken(name, op)
            if node is None or any(_attribute(node, key) != value for key, value in attrs.items()):
                return ""
            name = node.used[0]
        return name

    def _masked(self, name: str, number: float, diagonal: int) -> str:
        """What stands below a diagonal where above it a number does; empty where that is not so."""
        node = self._taken(name, "ops.where")
        if node is None or node.attrs.get("x1") != number or len(node.used) != 2:
            return ""
        lower = self._along(node.used[0], ("ops.logical_not", {}), ("ops.tril", {"k": diagonal}))
        return node.used[1] if self._taken(lower, "ops.ones") else ""


def _attribute(node: Node, key: str) -> object:
    """An attribute, an axis counted from the front."""
    value = node.attrs.get(key)
    return value % node.tensor.rank if key == "axis" and isinstance(value, int) else value
