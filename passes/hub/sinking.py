"""One walk over a graph that moves its transposes down."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from hf2khc.ir.analysis import weight_values
from hf2khc.ir.graph import LEAVES, Graph, Node, numbered
from hf2khc.ir.types import Tensor, Type, tensors
from hf2khc.passes.hub.layout_rules import Permutation, moved, untransposed

# A value and the permutation still due on it.
Layout = tuple[str, Permutation | None]


@dataclass(frozen=True)
class Opened:
    """A graph whose transposes at its borders are left to its callers.

    Args:
        before: the graph as it was.
        walk: that moved its transposes down.
        taken: the permutations that are due on its inputs, by position.
    """

    before: Graph
    walk: "Sinking"
    taken: Mapping[int, Permutation]

    @cached_property
    def graph(self) -> Graph:
        """The graph itself."""
        return self.walk.inner()

    @property
    def takes(self) -> Mapping[int, Permutation]:
        """The axes by which the caller transposes an operand, by its position."""
        return {place: inverted(due) for place, due in self.taken.items()}

    @property
    def gives(self) -> tuple[Permutation | None, ...]:
        """The permutation that is due on each result."""
        return self.walk.due

    @property
    def changed(self) -> Mapping[str, "Opened"]:
        """The graphs that it calls, and that take another layout for its sake."""
        return self.walk.changed

    @cached_property
    def cost(self) -> int:
        """How many times data are transposed in it, and how many more times in what it changed."""
        more = sum(found.own_cost - self.walk.opened[name].own_cost for name, found in self.changed.items())
        return self.own_cost + more

    @cached_property
    def own_cost(self) -> int:
        """How many times data are transposed in it; weights are small."""
        weights = weight_values(self.graph)
        return sum(node.name not in weights for node in self.graph.of("ops.transpose"))


def open_graph(graph: Graph, opened: Mapping[str, Opened], taken: Mapping[int, Permutation]) -> Opened:
    """A graph that takes inputs with permutations due on them, by position, and calls those that are open already."""
    due = {graph.inputs[place].name: permutation for place, permutation in taken.items()}
    return Opened(graph, Sinking(graph, opened, due).run(), taken)


@dataclass
class Sinking:
    """The walk. `layout` says how each old value is had: a new value and the permutation still due on it.

    Args:
        graph: to walk.
        opened: the graphs it calls, by name; each is called from here alone.
        taken: inputs that come in another layout, each with the permutation that is due on it.
        turned: values computed anew in another layout, by the permutation that would be due on them.
        changed: graphs that do not care about the layout, and take that of the values they are given.
    """

    graph: Graph
    opened: Mapping[str, Opened] = field(default_factory=dict)
    taken: Mapping[str, Permutation] = field(default_factory=dict)
    new: dict[str, Node] = field(default_factory=dict)
    layout: dict[str, Layout] = field(default_factory=dict)
    # Where the transpose of an old value was written: what it was a transpose of.
    source: dict[str, Layout] = field(default_factory=dict)
    weights: frozenset[str] = frozenset()
    changed: dict[str, Opened] = field(default_factory=dict)
    turned: dict[tuple[str, Permutation], str | None] = field(default_factory=dict)

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
        callee = self._callee(node)
        takes = callee.takes if callee else {}
        operands = [o and self._given(o, takes.get(i)) for i, o in enumerate(node.operands)]
        types = tensors(node.type)
        gives = callee.gives if callee else (None,) * len(types)
        new = tuple(untransposed(t, due) if due else t for t, due in zip(types, gives, strict=True))
        single = not isinstance(node.type, tuple)
        made = replace(node, operands=tuple(operands), type=new[0] if single else new)
        self._keep(made, gives[0] if single else None)

    def _callee(self, node: Node) -> Opened | None:
        """The graph of a call, in the layout of what it is given where that is no transpose more inside."""
        name = str(node.attrs["graph"])
        for place, operand in enumerate(node.operands):
            found = self._opened(name)
            due = self.layout[operand][1] if operand else None
            if found and due and place not in found.taken:
                every = {**self.opened, **self.changed}
                trial = open_graph(found.before, every, {**found.taken, place: due})
                if trial.cost <= found.own_cost:
                    self.changed |= {**trial.changed, name: trial}
        return self._opened(name)

    def _opened(self, name: str) -> Opened | None:
        return self.changed.get(name) or self.opened.get(name)

    def _given(self, operand: str, axes: Permutation | None) -> str:
        """An operand of a call, transposed by `axes` where the graph takes it so."""
        return self._materialised(operand) if axes is None else self._written(operand, *self._composed(operand, axes))

    def _part(self, node: Node) -> bool:
        """A result of a call that has several."""
        call = self.graph[node.used[0]] if node.op == "item" else None
        if call is None or call.op != "call":
            return False
        callee = self._opened(str(call.attrs["graph"]))
        mine = callee.gives[int(str(node.attrs["index"]))] if callee else None
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
        if type_.rank < rank and due is None:
            return self._spread(operand, permutation[first:], rank)
        if type_.rank == rank and all(permutation[i] == i or type_.shape[i] == 1 for i in range(rank)):
            return base if all(d == 1 for i, d in enumerate(type_.shape) if permutation[i] != i) else None
        if type_.rank != rank:
            return None
        if due is None and self.graph[operand].op == "ops.expand_dims":
            # One for each use: rules match what nothing else reads.
            return self._unsqueezed(operand, permutation)
        if (operand, permutation) not in self.turned:
            self.turned[operand, permutation] = self._turned(operand, permutation)
        return self.turned[operand, permutation]

    def _turned(self, operand: str, permutation: Permutation) -> str | None:
        """A value computed anew in the earlier layout: of fewer axes that are spread otherwise, or of weights."""
        node = self.graph[operand]
        if self.layout[operand][1] is not None:
            return None
        if node.level == "ops" and node.used and self.graph[node.used[0]].tensor.rank == len(permutation):
            result = moved(node, permutation, self.graph[node.used[0]].tensor)
            operands = [o and self._above(o, permutation, node) for o in node.operands if result]
            if result and result[2] == permutation and len(list(filter(None, operands))) == len(node.used):
                return self._added(operand, "turned", node.op, tuple(operands), *result[:2])
        inverse, shape = inverted(permutation), node.tensor.shape
        order = [axis for axis in inverse if shape[axis] != 1]
        if order == sorted(order):
            type_, base = untransposed(node.tensor, permutation), self.layout[operand][0]
            return self._added(operand, "turned", "ops.reshape", (base,), {"newshape": type_.shape}, type_)
        # One for each channel is turned at less cost than what it scales.
        return self._written(operand, *self._composed(operand, inverse)) if operand in self.weights else None

    def _spread(self, operand: str, axes: Permutation, rank: int) -> str | None:
        """Fewer axes than the rest, new ones put between them: in the earlier layout they lie at `axes` of `rank`."""
        type_ = self.graph[operand].tensor
        placed = {axis: size for axis, size in zip(axes, type_.shape, strict=True) if size != 1}
        if list(placed) != sorted(placed):
            return None
        new = tuple(placed.get(axis, 1) for axis in range(min(placed, default=rank - 1), rank))
        added = [place for place, size in enumerate(new) if size == 1]
        plain = len(placed) == type_.rank
        op, attrs = (
            ("ops.expand_dims", {"axis": added[0]}) if plain and len(added) == 1 else ("ops.reshape", {"newshape": new})
        )
        return self._added(operand, "spread", op, (self.layout[operand][0],), attrs, Tensor(type_.dtype, new))

    def _unsqueezed(self, operand: str, permutation: Permutation) -> str | None:
        """In the earlier layout `expand_dims(x, axis)` takes another axis, where the rest keeps its order."""
        node = self.graph[operand]
        if not isinstance(node.attrs["axis"], int):
            return None
        axis = node.attrs["axis"] % node.tensor.rank
        inverse = inverted(permutation)
        rest = [i for i in inverse if i != axis]
        if rest != sorted(rest):
            return None
        type_ = Tensor(node.tensor.dtype, tuple(node.tensor.shape[i] for i in inverse))
        source = self._materialised(node.operands[0])  # type: ignore[arg-type]
        return self._added(operand, "expanded", node.op, (source,), {"axis": inverse.index(axis)}, type_)

    def _added(
        self, old: str, suffix: str, op: str, operands: tuple[str | None, ...], attrs: Mapping[str, object], type_: Type
    ) -> str:
        """The name of a new node that stands for an old value in another layout."""
        name, node = numbered(f"{_title(old)}_{suffix}", self.new), self.graph[old]
        self.new[name] = Node(name, op, operands, attrs, type_, node.loc, node.origin)
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
        name = numbered(old if node.op == "ops.transpose" else f"{_title(old)}_transposed", self.new)
        origin = node.origin | {"sink_transposes"}
        self.new[name] = Node(name, "ops.transpose", (base,), {"axes": due}, type_, node.loc, origin)
        return name


def inverted(permutation: Permutation) -> Permutation:
    """The permutation that undoes another."""
    return tuple(permutation.index(i) for i in range(len(permutation)))


def _title(name: str) -> str:
    """What the value of a parameter may be called."""
    return name.lstrip("@").replace(".", "_")


def _axes(node: Node) -> Permutation:
    axes = node.attrs.get("axes") or tuple(reversed(range(node.tensor.rank)))
    return tuple(int(a) % node.tensor.rank for a in axes)  # type: ignore[attr-defined]
