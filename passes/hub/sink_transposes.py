"""Move transposes down until they cancel."""

from dataclasses import dataclass, field, replace

from hf2khc.ir.analysis import weight_values
from hf2khc.ir.graph import LEAVES, Graph, Node, Program
from hf2khc.ir.types import Tensor
from hf2khc.passes.hub.layout_rules import moved

Permutation = tuple[int, ...]


def sink_transposes(program: Program) -> Program:
    """Move each transpose of data below the operations that do not care about layout; two that meet cancel.

    Attention in torch works on (batch, heads, seq, head_dim), in Keras on (batch, seq, heads, head_dim): what stands
    between the two transposes (rotary embedding, norms of queries and keys, repeated heads) moves to Keras's layout.

    Before:

        graph Attention(%x: f32[batch, seq, 3, 4]) {
          %t: f32[batch, 3, seq, 4] = ops.transpose(%x, axes=(0, 2, 1, 3))
          %y: f32[batch, 3, seq, 4] = ops.negative(%t)
          %z: f32[batch, seq, 3, 4] = ops.transpose(%y, axes=(0, 2, 1, 3))
          return %z
        }

        entry Attention

    After:

        graph Attention(%x: f32[batch, seq, 3, 4]) {
          %y: f32[batch, seq, 3, 4] = ops.negative(%x)
          return %y
        }

        entry Attention
    """
    return program.map(lambda graph: _Sinking(graph).run() if graph.of("ops.transpose") else graph)


@dataclass
class _Sinking:
    """One forward walk. `layout` says how each old value is had: a new value and the permutation still due on it."""

    graph: Graph
    new: dict[str, Node] = field(default_factory=dict)
    layout: dict[str, tuple[str, Permutation | None]] = field(default_factory=dict)
    weights: frozenset[str] = frozenset()

    def run(self) -> Graph:
        self.weights = weight_values(self.graph)
        for node in self.graph:
            if node.op in LEAVES or node.name in self.weights:
                self._keep(node)
            elif node.op == "ops.transpose":
                self._transpose(node)
            elif not self._move(node):
                self._keep(replace(node, operands=tuple(o and self._materialised(o) for o in node.operands)))
        outputs = [self._materialised(o) for o in self.graph.outputs]
        return self.graph.replaced(self.new.values(), outputs=outputs).pruned()

    def _keep(self, node: Node) -> None:
        self.new[node.name] = node
        self.layout[node.name] = (node.name, None)

    def _transpose(self, node: Node) -> None:
        base, due = self.layout[node.operands[0]]  # type: ignore[index]
        axes = node.attrs.get("axes") or tuple(reversed(range(node.tensor.rank)))
        axes = tuple(int(a) % node.tensor.rank for a in axes)  # type: ignore[attr-defined]
        total = tuple(due[a] for a in axes) if due else axes
        self.layout[node.name] = (base, None if total == tuple(range(len(total))) else total)

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
        name, (attrs, type_, left) = self._free(node.name), result
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
        inverse = tuple(permutation.index(i) for i in range(len(permutation)))
        rest = [i for i in inverse if i != axis]
        if rest != sorted(rest):
            return None
        name = self._free(f"{operand}_expanded")
        type_ = Tensor(node.tensor.dtype, tuple(node.tensor.shape[i] for i in inverse))
        source = self._materialised(node.operands[0])  # type: ignore[arg-type]
        self.new[name] = Node(name, node.op, (source,), {"axis": inverse.index(axis)}, type_, node.loc, node.origin)
        return name

    def _materialised(self, old: str) -> str:
        """The old value itself, a transpose printed where one is still due."""
        base, due = self.layout[old]
        if due is None:
            return base
        node = self.graph[old]
        name = self._free(old if node.op == "ops.transpose" else f"{old}_transposed")
        origin = node.origin | {"sink_transposes"}
        self.new[name] = Node(name, "ops.transpose", (base,), {"axes": due}, node.type, node.loc, origin)
        self.layout[old] = (name, None)
        return name

    def _free(self, base: str) -> str:
        name, n = base, 0
        while name in self.new:
            n += 1
            name = f"{base}_{n}"
        return name
