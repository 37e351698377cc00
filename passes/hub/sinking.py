"""One walk over a graph that moves its transposes down."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hf2khc.ir.analysis import weight_values
from hf2khc.ir.graph import LEAVES, Graph, Node, numbered
from hf2khc.ir.types import Tensor, tensors
from hf2khc.passes.hub.layout_rules import Permutation, moved, untransposed

# A value and the permutation still due on it.
Layout = tuple[str, Permutation | None]


@dataclass(frozen=True)
class Border:
    """In which layout a graph takes its inputs and gives its results.

    Args:
        takes: the axes by which the caller transposes an operand, by its position.
        gives: the permutation that is due on each result.
    """

    takes: Mapping[int, Permutation] = field(default_factory=dict)
    gives: tuple[Permutation | None, ...] = ()


@dataclass
class Sinking:
    """The walk. `layout` says how each old value is had: a new value and the permutation still due on it.

    Args:
        graph: to walk.
        borders: of the graphs it calls, by name.
        taken: inputs that come in another layout, each with the permutation that is due on it.
    """

    graph: Graph
    borders: Mapping[str, Border] = field(default_factory=dict)
    taken: Mapping[str, Permutation] = field(default_factory=dict)
    new: dict[str, Node] = field(default_factory=dict)
    layout: dict[str, Layout] = field(default_factory=dict)
    # Where the transpose of an old value was written: what it was a transpose of.
    source: dict[str, Layout] = field(default_factory=dict)
    weights: frozenset[str] = frozenset()

    def run(self) -> "Sinking":
        self.weights = weight_values(self.graph)
        for node in self.graph:
            if node.name in self.taken:
                self._take(node, self.taken[node.name])
            elif node.op in LEAVES or node.name in self.weights:
                self._keep(node)
            elif node.op == "ops.transpose":
                self.layout[node.name] = self._composed(node.operands[0], _axes(node))  # type: ignore[arg-type]
            elif node.op == "call":
                self._call(node)
            elif not (self._part(node) or self._move(node)):
                self._keep(replace(node, operands=tuple(o and self._materialised(o) for o in node.operands)))
        return self

    def whole(self) -> Graph:
        """The graph with results in their old layout."""
        return self._ending([self._materialised(o) for o in self.graph.outputs])

    def inner(self) -> Graph:
        """The graph with results as they are, the permutations in `due` left to its callers."""
        return self._ending([self.layout[o][0] for o in self.graph.outputs])

    def _ending(self, outputs: list[str]) -> Graph:
        return self.graph.replaced(self.new.values(), outputs=outputs).pruned()

    @property
    def due(self) -> tuple[Permutation | None, ...]:
        return tuple(self.layout[o][1] for o in self.graph.outputs)

    def _keep(self, node: Node, due: Permutation | None = None) -> None:
        self.new[node.name] = node
        self.layout[node.name] = (node.name, due)

    def _take(self, node: Node, due: Permutation) -> None:
        self._keep(replace(node, type=untransposed(node.tensor, due)), due)

    def _composed(self, operand: str, axes: Permutation) -> Layout:
        """The transpose of a value."""
        base, due = self.source.get(operand, self.layout[operand])
        total = tuple(due[a] for a in axes) if due else axes
        return base, None if total == tuple(range(len(total))) else total

    def _call(self, node: Node) -> None:
        border = self.borders.get(str(node.attrs["graph"]), Border())
        operands = [o and self._given(o, border.takes.get(i)) for i, o in enumerate(node.operands)]
        types = tensors(node.type)
        gives = border.gives or (None,) * len(types)
        new = tuple(untransposed(t, due) if due else t for t, due in zip(types, gives, strict=True))
        single = not isinstance(node.type, tuple)
        made = replace(node, operands=tuple(operands), type=new[0] if single else new)
        self._keep(made, gives[0] if single else None)

    def _given(self, operand: str, axes: Permutation | None) -> str:
        """An operand of a call, transposed by `axes` where the graph takes it so."""
        return self._materialised(operand) if axes is None else self._written(operand, *self._composed(operand, axes))

    def _part(self, node: Node) -> bool:
        """A result of a call that has several."""
        call = self.graph[node.used[0]] if node.op == "item" else None
        if call is None or call.op != "call":
            return False
        due = self.borders.get(str(call.attrs["graph"]), Border()).gives
        mine = due[int(str(node.attrs["index"]))] if due else None
        self._keep(replace(node, type=untransposed(node.tensor, mine)) if mine else node, mine)
        return True

    def _move(self, node: Node) -> bool:
        """Try to put `node` above the transposes of its operands."""
        due = {permutation for o in node.used if (permutation := self.layout[o][1]) is not None}
        if len(due) != 1:
            return False
        (permutation,) = due
        operands = [o if o is None else self._above(o, permutation, node) for o in node.operands]
        if any(o is None and old is not None for o, old in zip(operands, node.operands, strict=True)):
            return False
        before = self.graph[node.used[0]].type
        # A part of what was split has the layout of the whole.
        result = moved(node, permutation, before[0] if isinstance(before, tuple) else before)
        if result is None:
            return False
        name, (attrs, type_, left) = numbered(node.name, self.new), result
        self.new[name] = Node(name, node.op, tuple(operands), attrs, type_, node.loc, node.origin | {"sink_transposes"})
        self.layout[node.name] = (name, left)
        return True

    def _above(self, operand: str, permutation: Permutation, user: Node) -> str | None:
        """The operand in the layout before the permutation; `None` where that would cost a transpose."""
        base, due = self.layout[operand]
        if due == permutation or (user.level == "layers" and operand in self.weights):
            return base
        type_, rank = self.graph[operand].tensor, len(permutation)
        first = rank - type_.rank
        if type_.rank < rank and all(permutation[i] == i for i in range(first, rank)):
            return base
        if type_.rank == rank and all(permutation[i] == i or type_.shape[i] == 1 for i in range(rank)):
            return base if all(d == 1 for i, d in enumerate(type_.shape) if permutation[i] != i) else None
        return self._unsqueezed(operand, permutation) if type_.rank == rank else None

    def _unsqueezed(self, operand: str, permutation: Permutation) -> str | None:
        """In the earlier layout `expand_dims(x, axis)` takes another axis, where the rest keeps its order."""
        node = self.graph[operand]
        if node.op != "ops.expand_dims" or not isinstance(node.attrs["axis"], int):
            return None
        axis = node.attrs["axis"] % node.tensor.rank
        inverse = inverted(permutation)
        rest = [i for i in inverse if i != axis]
        if rest != sorted(rest):
            return None
        name = numbered(f"{operand}_expanded", self.new)
        type_ = Tensor(node.tensor.dtype, tuple(node.tensor.shape[i] for i in inverse))
        source = self._materialised(node.operands[0])  # type: ignore[arg-type]
        self.new[name] = Node(name, node.op, (source,), {"axis": inverse.index(axis)}, type_, node.loc, node.origin)
        return name

    def _materialised(self, old: str) -> str:
        """The old value itself, a transpose printed where one is still due."""
        base, due = self.layout[old]
        name = self._written(old, base, due)
        if due is not None:
            self.source[old], self.layout[old] = (base, due), (name, None)
        return name

    def _written(self, old: str, base: str, due: Permutation | None) -> str:
        """What is due on `base`, done; it stands for the value `old`, or for a transpose of it."""
        if due is None:
            return base
        node = self.graph[old]
        before = self.new[base].tensor
        type_ = Tensor(before.dtype, tuple(before.shape[a] for a in due))
        name = numbered(old if node.op == "ops.transpose" else f"{old}_transposed", self.new)
        origin = node.origin | {"sink_transposes"}
        self.new[name] = Node(name, "ops.transpose", (base,), {"axes": due}, type_, node.loc, origin)
        return name


def inverted(permutation: Permutation) -> Permutation:
    """The permutation that undoes another."""
    return tuple(permutation.index(i) for i in range(len(permutation)))


def _axes(node: Node) -> Permutation:
    axes = node.attrs.get("axes") or tuple(reversed(range(node.tensor.rank)))
    return tuple(int(a) % node.tensor.rank for a in axes)  # type: ignore[attr-defined]
