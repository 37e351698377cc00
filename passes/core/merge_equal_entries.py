"""What is the same for every entry of an axis is computed for one of them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from hf2khc.ir.expr import same
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.types import Tensor, Type, same_type

# What tables of positions are made of, element by element.
_EACH = {
    "aten.add", "aten.cos", "aten.div", "aten.exp", "aten.mul", "aten.neg", "aten.pow", "aten.reciprocal", "aten.sin",
    "aten.sub", "aten.to", "aten._to_copy",
}  # fmt: skip
_MOVES = {"aten.expand", "aten.slice", "aten.unsqueeze", "aten.select", "item"}
_SPLITS = {"aten.split_with_sizes", "aten.split"}


def merge_equal_entries(program: Program) -> Program:
    """Take one of entries that are equal, early, and drop writes of what is there already.

    Models that see images turn queries and keys by three positions, those in time, height and width. Of text alone the
    three are one, and what selects from them, part by part, selects from the same table.

    Before:

        graph Cosines(%x: f32[batch, seq]) {
          %three: f32[3, batch, seq] = aten.expand(%x, size=(3, batch, seq))
          %cos: f32[3, batch, seq] = aten.cos(%three)
          %a: f32[batch, seq] = aten.select(%cos, dim=0, index=0)
          %b: f32[batch, seq] = aten.select(%cos, dim=0, index=1)
          %part: f32[batch, 1] = aten.slice(%b, dim=1, start=1, end=2)
          %y: f32[batch, seq] = aten.slice_scatter(%a, %part, dim=1, start=1, end=2)
          return %y
        }

        entry Cosines

    After:

        graph Cosines(%x: f32[batch, seq]) {
          %cos_entry: f32[batch, seq] = aten.cos(%x)
          return %cos_entry
        }

        entry Cosines
    """
    return program.map(lambda graph: _Merging(graph).graph())


class _Merging:
    def __init__(self, graph: Graph):
        self.before = graph
        self.nodes = dict(graph.nodes)
        self.made: dict[str, Node] = {}
        self.entries: dict[tuple[str, int], str] = {}
        self.equal: dict[str, frozenset[int]] = {}

    def graph(self) -> Graph:
        redirect: dict[str, str] = {}
        for node in self.before:
            operands = tuple(None if o is None else redirect.get(o, o) for o in node.operands)
            node = self.nodes[node.name] = replace(node, operands=operands)
            found = self._same(node)
            if found is not None:
                redirect[node.name] = found
            self.equal[node.name] = self._equal_axes(node)
        return self.before.rewired(self.made.values(), redirect) if redirect else self.before

    def _same(self, node: Node) -> str | None:
        """The value that a node is equal to."""
        operands = node.used
        match node.op:
            case "aten.select":
                dim = _dim(node, self._rank(operands[0]))
                return self._entry(operands[0], dim) if dim in self.equal[operands[0]] else None
            case "aten.slice_scatter" if self._is_slice_of(operands[1], node):
                return operands[0]
            case "aten.select_scatter":
                is_there = operands[1] == self.entries.get((operands[0], _dim(node, node.tensor.rank)))
                return operands[0] if is_there else None
            case "aten.cat":
                return self._split_before(node)
        return None

    def _is_slice_of(self, name: str, write: Node) -> bool:
        """Whether a value is read where it is written."""
        read = self.nodes[name]
        if read.op != "aten.slice" or read.operands[0] != write.operands[0]:
            return False
        first, second = ({**node.attrs, "dim": _dim(node, write.tensor.rank)} for node in (read, write))
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)

    def _split_before(self, node: Node) -> str | None:
        """What was split along the axis of a concatenation, where that puts all parts together again."""
        parts = [self.nodes[name] for name in node.used]
        if any(part.op != "item" for part in parts) or len({part.operands for part in parts}) != 1:
            return None
        split = self.nodes[parts[0].used[0]]
        in_order = [part.attrs["index"] for part in parts] == list(range(len(split.type)))  # type: ignore[arg-type]
        rank = node.tensor.rank
        if split.op in _SPLITS and in_order and _dim(split, rank) == _dim(node, rank):
            return split.used[0]
        return None

    def _equal_axes(self, node: Node) -> frozenset[int]:
        """Axes along which all entries of a value are equal."""
        if not isinstance(node.type, Tensor) or not node.used:
            return frozenset()
        rank = node.tensor.rank
        axes = [axis for axis in range(rank) if node.tensor.shape[axis] != 1]
        if node.op not in _EACH and node.op not in _MOVES:
            return frozenset()
        return frozenset(axis for axis in axes if all(self._is_constant(*s) for s in self._sources(node, axis)))

    def _sources(self, node: Node, axis: int) -> Iterable[tuple[str, int]]:
        """The operands of a node, and which axis of each is an axis of the result; negative where it has none."""
        rank = node.tensor.rank
        if node.op in ("aten.unsqueeze", "aten.select"):
            dim = _dim(node, max(rank, self._rank(node.used[0])))
            yield node.used[0], axis - (axis > dim) if node.op == "aten.unsqueeze" else axis + (axis >= dim)
        elif node.op == "item":
            split = self.nodes[node.used[0]]
            yield (split.used[0], axis) if split.op in _SPLITS else ("", axis)
        else:
            yield from ((name, axis - rank + self._rank(name)) for name in node.used)

    def _is_constant(self, name: str, axis: int) -> bool:
        return bool(name) and (axis < 0 or self.nodes[name].tensor.shape[axis] == 1 or axis in self.equal[name])

    def _entry(self, name: str, axis: int) -> str:
        """A value without an axis along which it is constant."""
        if axis < 0:
            return name
        if (name, axis) not in self.entries:
            self.entries[name, axis] = self._made(self.nodes[name], axis)
        return self.entries[name, axis]

    def _made(self, node: Node, axis: int) -> str:
        """The value of a node without an axis, computed without it as far up as that goes."""
        if node.op in _SPLITS:
            return self._split(node, axis)
        type_, dim = _without(node.tensor, axis), _dim(node, node.tensor.rank)
        attrs = node.attrs
        match node.op:
            case "aten.unsqueeze" if dim == axis:
                return node.used[0]
            case "aten.slice" if dim == axis:
                return self._entry(node.used[0], axis)
            case "aten.view":
                return self._new(node, node.operands, type_, {"size": type_.shape})
            case "item" if self._splits_another(node, axis):
                return self._new(node, (self._entry(node.used[0], axis),), type_, attrs)
            case "aten.slice" | "aten.unsqueeze":
                attrs = {**attrs, "dim": dim - (dim > axis)}
            case "aten.expand":
                attrs = {**attrs, "size": type_.shape}
            case op if op not in _EACH:
                return self._new(node, (node.name,), type_, {"dim": axis, "index": 0}, "aten.select")
        operands = [self._entry(*source) for source in self._sources(node, axis)]
        if node.op == "aten.expand" and same_type(self.nodes[operands[0]].type, type_):
            return operands[0]
        return self._new(node, operands, type_, attrs)

    def _splits_another(self, item: Node, axis: int) -> bool:
        """Whether a part was split off along another axis."""
        split = self.nodes[item.used[0]]
        return split.op in _SPLITS and _dim(split, item.tensor.rank) != axis

    def _split(self, node: Node, axis: int) -> str:
        """A split without an axis along which its operand is constant."""
        assert isinstance(node.type, tuple)
        dim = _dim(node, self._rank(node.used[0]))
        operand = self._entry(node.used[0], axis)
        types = tuple(_without(type_, axis) for type_ in node.type)  # type: ignore[arg-type]
        return self._new(node, (operand,), types, {**node.attrs, "dim": dim - (dim > axis)})

    def _new(
        self, like: Node, operands: Iterable[str | None], type_: Type, attrs: Mapping[str, object], op: str = ""
    ) -> str:
        name = self.before.fresh(f"{like.name}_entry", self.made)
        self.nodes[name] = self.made[name] = Node(
            name, op or like.op, tuple(operands), attrs, type_, like.loc, like.origin
        )
        self.equal[name] = frozenset()
        return name

    def _rank(self, name: str) -> int:
        return self.nodes[name].tensor.rank


def _dim(node: Node, rank: int) -> int:
    dim = int(node.attrs.get("dim", 0))  # type: ignore[call-overload]
    return dim + rank if dim < 0 else dim


def _without(tensor: Tensor, axis: int) -> Tensor:
    return Tensor(tensor.dtype, tuple(size for place, size in enumerate(tensor.shape) if place != axis))
