"""Which axes of the values of a graph are positions, and what an operation asks of its operands along them."""

from hf2khc.driver.decode_moves import moved_axis
from hf2khc.ir.analysis import weight_values
from hf2khc.ir.axes import Axes, axes_of
from hf2khc.ir.expr import Expr, names_of, same, substitute
from hf2khc.ir.graph import Graph, Node
from hf2khc.ir.signatures import axis_entries
from hf2khc.ir.types import Tensor, tensors
from hf2khc.write.plan import KEYS, START

# Operations with several results, and the axis along which they take a value apart unless they are told another one.
_PARTS = {"ops.split": 0, "ops.unstack": 0, "ops.top_k": -1}
# Axes of a value along which it is needed, or is there, at all positions and not at those of the inputs alone.
Places = frozenset[int]
HERE: Places = frozenset()


class NoCache(Exception):
    """Why no cached step can be derived."""


class Positions:
    """The positions of a graph's values.

    Args:
        graph: the graph.
        symbol: how many there are, as the graph calls it.
    """

    def __init__(self, graph: Graph, symbol: str):
        self.graph, self.symbol = graph, symbol
        self.weights = weight_values(graph) | {n.name for n in graph if n.op in ("param", "const")}
        self.fixed = self._fixed()

    def _fixed(self) -> frozenset[str]:
        """Values for which it does not matter how many positions there are, as what an encoder computes."""
        found: set[str] = set()
        for node in self.graph:
            sizes = [names_of(value) for value in node.attrs.values()]
            sizes += [type_.symbols for type_ in tensors(node.type)]
            if not any(self.symbol in names for names in sizes) and all(o in found for o in node.used):
                found.add(node.name)
        return frozenset(found)

    def operands(self, node: Node, keys: Places) -> list[Places] | None:
        """Along which axes each operand is needed at all positions; None where the operation has to see everything."""
        if isinstance(node.type, tuple):
            return [HERE] * len(node.operands) if self._parts(node) else None
        types = [self._data_type(o) for o in node.operands]
        found_axes = self._moved(node, keys) or axes_of(node, types)
        if found_axes is None:
            return None if any(o and self.axes(o) for o in node.operands) else [HERE] * len(node.operands)
        carried_to = {axis for carried in found_axes.maps for axis in carried.values()}
        if (found_axes.whole | (self.axes(node.name) - carried_to)) & (self.axes(node.name) - keys):
            return None
        found = []
        for operand, carried in zip(node.operands, (*found_axes.maps, *({},) * len(types)), strict=False):
            own = self.axes(operand) if operand else HERE
            lost = {axis for axis in own if axis not in carried}
            # Scores have an axis of queries, too, and along that of keys all are there.
            if lost and not found_axes.summed and len(own) == 1:
                return None
            found.append(frozenset({axis for axis in own if axis in carried and carried[axis] in keys} | lost))
        return found

    def _moved(self, node: Node, keys: Places) -> Axes | None:
        """The axis of an operation that does the same at every position, with it and those around it."""
        if keys or not node.used or len(self.axes(node.used[0])) != 1:
            return None
        (axis,) = self.axes(node.used[0])
        place = moved_axis(node, self.graph[node.used[0]].tensor, axis)
        return None if place is None else Axes(({axis: place}, *({} for _ in node.operands[1:])))

    def _parts(self, node: Node) -> bool:
        """Whether an operation with several results treats every position by itself."""
        first, rest = node.used[0], node.used[1:]
        axes, axis = self.axes(first), node.attrs.get("axis", _PARTS.get(node.op))
        return (
            isinstance(axis, int)
            and axis % self.graph[first].tensor.rank not in axes
            and not any(self.axes(o) for o in rest)
        )

    def _data_type(self, operand: str | None) -> Tensor | None:
        if operand is None or operand in self.weights:
            return None if operand is None else self.graph[operand].tensor
        type_ = self.graph[operand].type
        return type_ if isinstance(type_, Tensor) else None

    def attributes(self, node: Node, keys: Places) -> dict[str, object] | None:
        """The attributes where some axes are longer; None where one depends on the length in another way."""
        attrs = dict(node.attrs)
        if self._moved(node, keys):
            return attrs
        for key, value in node.attrs.items():
            if self.symbol not in names_of(value) and not (node.op == "ops.get_item" and key == "key"):
                continue
            if key in ("newshape", "shape") and isinstance(value, tuple) and len(value) == node.tensor.rank:
                attrs[key] = tuple(self._dim(dim, axis in keys) for axis, dim in enumerate(value))
            elif key == "key":
                attrs[key] = _open(value, self.graph[node.operands[0] or ""].tensor)
                if self.symbol in names_of(attrs[key]) and not keys:
                    return None
                attrs[key] = substitute(attrs[key], {self.symbol: Expr(KEYS)})
            else:
                return None
        return attrs

    def first_rows(self, node: Node) -> tuple | None:
        """Where a `get_item` begins that takes as many rows of a table as there are positions; None for another one."""
        source, key = self.graph[node.used[0]].tensor, node.attrs["key"]
        entries = axis_entries(key, source.rank)
        if not all(isinstance(entry, tuple) and entry[1] in (0, None) and entry[3] in (1, None) for entry in entries):
            return None
        return tuple(Expr(START) if self.symbol in names_of(entry[2]) else 0 for entry in entries)

    def type(self, node: Node, keys: Places) -> Tensor | tuple[Tensor, ...]:
        """The type of a value that is longer along some axes."""
        if isinstance(node.type, tuple):
            return node.type
        dims = tuple(self._dim(dim, axis in keys) for axis, dim in enumerate(node.type.shape))
        return Tensor(node.type.dtype, dims)

    def _dim(self, dim, longer: bool):
        return substitute(dim, {self.symbol: Expr(KEYS)}) if longer else dim

    def axes(self, name: str) -> Places:
        """The axes of a value on which positions stand."""
        if name in self.weights:
            return HERE
        type_ = self.graph[name].type
        if isinstance(type_, tuple):
            return HERE if not any(self.symbol in t.symbols for t in type_) else frozenset({-1})
        return frozenset(axis for axis, dim in enumerate(type_.shape) if self.symbol in names_of(dim))


def _open(key, type_: Tensor):
    """A key with the slices that take a whole axis spelt without its size."""
    entries = key if isinstance(key, tuple) and key[:1] != ("slice",) else (key,)
    if "ellipsis" in entries:
        return key
    axis, found = 0, []
    for entry in entries:
        is_slice = isinstance(entry, tuple) and entry[1] in (0, None) and entry[2] is not None
        whole = is_slice and same(entry[2], type_.shape[axis])
        axis += entry != "newaxis"
        found.append(("slice", None, None, entry[3]) if whole else entry)
    return tuple(found)
