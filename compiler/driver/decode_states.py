"""What a derived graph keeps of the positions before its inputs: entries of a sequence, and what a scan carries."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hf2khc.driver.decode_positions import HERE, NoCache, Places
from hf2khc.driver.decode_recurrence import Recurrence, recurrence
from hf2khc.ir.expr import simplify
from hf2khc.ir.graph import Node, scan_parts
from hf2khc.ir.signatures import axis_key, only_entry
from hf2khc.ir.types import Tensor
from hf2khc.write.plan import KEEP, SCANNED, STATE, WINDOW, State, state_attributes

if TYPE_CHECKING:
    from hf2khc.driver.decode_graph import DerivedGraph

# Operations that hold one value in every entry, or only arrange what holds one.
_FILLED = {"ops.zeros": 0.0, "ops.zeros_like": 0.0, "ops.ones": 1.0, "ops.ones_like": 1.0}
_ARRANGING = ("ops.reshape", "ops.transpose", "ops.expand_dims", "ops.broadcast_to", "ops.cast", "ops.squeeze")
_BY_A_NUMBER = {"ops.add": lambda a, b: a + b, "ops.subtract": lambda a, b: a - b, "ops.multiply": lambda a, b: a * b}


@dataclass(frozen=True)
class _Kept:
    """A state, and the value that holds the next one."""

    state: State
    source: str


class States:
    """The states of a graph.

    A sequence with zeros in front of it is one with the last entries before it in front of it. What a scan begins with
    is what it carried last. Behind the inputs both are known, and are kept for the next ones.

    Args:
        owner: the graph while it is derived.
    """

    def __init__(self, owner: "DerivedGraph"):
        self.owner = owner
        self.kept: dict[str, _Kept] = {}

    def __bool__(self) -> bool:
        return bool(self.kept)

    def found(self, node: Node) -> str | None:
        """The value of a node that has a state; None for another one."""
        if node.op in ("ops.pad", "ops.concatenate") and len(self.owner.positions.axes(node.name)) == 1:
            return self._window(node)
        if node.op == "ops.einsum" and self.owner.positions.axes(node.name):
            known = recurrence(self.owner.graph, node)
            return self._recurrent(node, known) if known else None
        return None

    def _recurrent(self, node: Node, known: Recurrence) -> str:
        """A recurrence that begins with what it gave last; all else in it is about the entries that there are."""
        zeros, rest = known.joined.used[0], known.joined.used[1:]
        if self._fill(zeros) != 0:
            raise NoCache(f"what the recurrence at {node.loc} begins with is not zero")
        self.owner.want(known.decays, HERE)
        for name in known.inside:
            self.owner.add(self.owner.graph[name])
        type_ = self.owner.graph[zeros].tensor
        kept = State(type_.shape[1:], 0.0, known.axis, 1)
        state = self._keep(node.name, type_, kept, node.name)
        first = self.owner.want(zeros, HERE)
        attrs = {"index": self._index(node.name)}
        self.owner.add(Node(state, STATE, (first,), attrs, type_, node.loc, node.origin))
        entries = tuple(self.owner.want(name, HERE) for name in rest)
        self.owner.add(replace(known.joined, operands=(state, *entries)))
        return self.owner.add(node)

    def _window(self, node: Node) -> str | None:
        """The value of an operation that puts zeros in front of a sequence; None for another one."""
        (axis,) = self.owner.positions.axes(node.name)
        pads = self._pads(node) if node.op == "ops.pad" else self._joined_zeros(node, axis)
        if pads is None or pads[axis][0] == 0 or any(p != (0, 0) for i, p in enumerate(pads) if i != axis):
            return None
        before, behind = pads[axis]
        source, cut = self._uncut(node.used[-1], axis)
        type_ = self._longer(self.owner.graph[source].tensor, axis, before)
        row = (*type_.shape[1:axis], before, *type_.shape[axis + 1 :])
        name = self.owner.graph.fresh(f"{node.name}_whole", self.owner.made) if cut or behind else node.name
        self._keep(node.name, type_, State(row, 0.0, axis, before), name)
        attrs = {"index": self._index(node.name), "axis": axis, "size": before}
        given = (self.owner.want(source, HERE),)
        self.owner.add(Node(name, WINDOW, given, attrs, type_, node.loc, node.origin))
        return self._rest(node, name, axis, cut, behind) if cut or behind else name

    def _rest(self, node: Node, window: str, axis: int, cut: int, behind) -> str:
        """What was cut off behind the sequence, or padded, is again."""
        rank = node.tensor.rank
        if cut and behind:
            raise NoCache(f"the padding at {node.loc} in {self.owner.graph.name} mixes positions")
        if cut:
            key = axis_key(("slice", None, -cut, None), axis, rank)
            return self.owner.add(replace(node, op="ops.get_item", operands=(window,), attrs={"key": key}))
        widths = tuple((0, behind) if i == axis else (0, 0) for i in range(rank))
        return self.owner.add(replace(node, operands=(window,), attrs={**node.attrs, "pad_width": widths}))

    @staticmethod
    def _pads(node: Node) -> tuple | None:
        widths = node.attrs.get("pad_width")
        plain = node.attrs.get("mode", "constant") == "constant" and not node.attrs.get("constant_values")
        if not plain or len(node.used) > 1 or not isinstance(widths, tuple) or len(widths) != node.tensor.rank:
            return None
        return tuple(w if isinstance(w, tuple) else (w, w) for w in widths)

    def _joined_zeros(self, node: Node, axis: int) -> tuple | None:
        """How many zeros a concatenation puts in front, as widths of a padding; None where it does something else."""
        along = int(str(node.attrs.get("axis", 0))) % node.tensor.rank
        if len(node.used) != 2 or along != axis or self.owner.positions.axes(node.used[0]):
            return None
        size = self.owner.graph[node.used[0]].tensor.shape[axis]
        return (
            tuple((size if i == axis else 0, 0) for i in range(node.tensor.rank))
            if self._fill(node.used[0]) == 0
            else None
        )

    def _uncut(self, name: str, axis: int) -> tuple[str, int]:
        """A sequence before some entries were cut off behind it, and how many: they are those that come next."""
        node = self.owner.graph[name]
        if node.op != "ops.get_item":
            return name, 0
        entry = only_entry(node.attrs["key"], axis, self.owner.graph[node.used[0]].tensor.rank)
        if not isinstance(entry, tuple):
            return name, 0
        _, start, stop, step = entry
        if start not in (None, 0) or step not in (None, 1) or not isinstance(stop, int) or stop >= 0:
            return name, 0
        return node.used[0], -stop

    @staticmethod
    def _longer(type_: Tensor, axis: int, more) -> Tensor:
        shape = list(type_.shape)
        shape[axis] = simplify(f"{shape[axis]} + {more}")
        return Tensor(type_.dtype, tuple(shape))

    def scanned(self, node: Node, keys: Places) -> str:
        """A `scan` over positions that begins with what it carried last."""
        if keys:
            raise NoCache(f"%{node.name} of {self.owner.graph.name} is needed at all positions")
        carry, over, rest = scan_parts(node, node.operands)
        axes = self.owner.positions.axes
        others = [name for name in (*carry, *rest) if name]
        along = all(name and axes(name) == {0} for name in over)
        if not along or any(name in self.owner.data or axes(name) for name in others):
            raise NoCache(f"the scan at {node.loc} in {self.owner.graph.name} is not one over positions alone")
        (callee,) = self.owner.derivation.callees(node)
        begun = []
        for place, name in enumerate(carry):
            assert name is not None
            first = self.owner.want(name, HERE)
            begun.append(self._begun(node, place, first, name) if callee.uses(callee.inputs[place].name) else first)
        operands = (*begun, *(name and self.owner.want(name, HERE) for name in (*over, *rest)))
        return self.owner.add(replace(node, operands=operands))

    def _begun(self, node: Node, place: int, first: str, name: str) -> str:
        """What is carried at the beginning: as the model begins, or as it was kept."""
        type_, key = self.owner.graph[name].tensor, f"{node.name}.{place}"
        value = self._fill(name)
        if value is None:
            raise NoCache(f"what the scan at {node.loc} begins with is no one number")
        found = State(type_.shape[1:], value, 0)
        state = self._keep(key, type_, found, self._carried(node, place))
        attrs = {"index": self._index(key), "dtype": SCANNED}
        return self.owner.add(Node(state, STATE, (first,), attrs, type_, node.loc, node.origin))

    def _carried(self, node: Node, place: int) -> str:
        """The value that a scan carries from every entry to the next."""
        if not isinstance(node.type, tuple):
            return node.name
        items = (item for item in self.owner.graph.users(node.name) if item.attrs.get("index") == place)
        name = self.owner.graph.fresh(f"{node.name}_{place}", self.owner.made)
        item = Node(name, "item", (node.name,), {"index": place}, node.type[place], node.loc, node.origin)
        return self.owner.add(next(items, item))

    def _fill(self, name: str) -> float | None:
        """The number that a value holds in every entry; None where that is not known."""
        node = self.owner.graph[name]
        if node.op in _FILLED:
            return _FILLED[node.op]
        if node.op == "ops.full" and isinstance(node.attrs.get("fill_value"), int | float):
            return float(node.attrs["fill_value"])  # type: ignore[arg-type]
        if node.op in _ARRANGING:
            return self._fill(node.used[0])
        if node.op == "layers.Dense" and node.attrs.get("use_bias") is False and "activation" not in node.attrs:
            return 0.0 if self._fill(node.used[0]) == 0 else None
        number = node.attrs.get("x2")
        if node.op in _BY_A_NUMBER and isinstance(number, int | float):
            value = self._fill(node.used[0])
            return None if value is None else _BY_A_NUMBER[node.op](value, number)
        return None

    def _keep(self, key: str, type_: Tensor, state: State, source: str) -> str:
        """Record a state, and the value that holds the next one; the name for what it is used as."""
        if str(type_.shape[0]) != "batch":
            raise NoCache(f"a state of {self.owner.graph.name} has no row for each sequence")
        if not self.owner.knows(state.row):
            raise NoCache(f"a state of {self.owner.graph.name} has a size that only a call knows")
        self.kept[key] = _Kept(state, source)
        return self.owner.graph.fresh("state", self.owner.made)

    def _index(self, key: str) -> int:
        return list(self.kept).index(key)

    def result(self, output: str) -> str:
        """The result of the graph, with what is kept for the next inputs."""
        sources = tuple(kept.source for kept in self.kept.values())
        node = self.owner.made[output]
        attrs = state_attributes([kept.state for kept in self.kept.values()])
        name = self.owner.graph.fresh("kept", self.owner.made)
        return self.owner.add(Node(name, KEEP, (output, *sources), attrs, node.type, node.loc, node.origin))
