"""Move values that are computed from input ids, masks and sizes alone into the modules that use them."""

from dataclasses import dataclass, field, replace

from hf2khc.ir.analysis import module_paths
from hf2khc.ir.expr import names_of
from hf2khc.ir.graph import Graph, Node, Program, join
from hf2khc.ir.types import plain_symbols


def sink_producers(program: Program) -> Program:
    """Put masks, positions and rotary tables inside the layers that use them.

    transformers computes them once at the top and hands them down, so layers that differ by a mask have different
    operands and cannot be one loop, and a cached step would need all of them again. A producer without parameters whose
    leaves are integer inputs, sizes or constants is copied into its users; what is handed down then is the integer
    input.

    Before:

        graph Block(%x: f32[batch, seq, 8], %mask: bool[batch, seq]) {
          %y: f32[batch, seq, 8] = ops.where(%mask, %x, x2=0.0)
          return %y
        }

        graph Model(%x: f32[batch, seq, 8], %attention_mask: i64[batch, seq]) {
          %mask: bool[batch, seq] = ops.cast(%attention_mask, dtype="bool")
          %y: f32[batch, seq, 8] = call(%x, %mask, graph="Block", path="block")
          return %y
        }

        entry Model

    After:

        graph Block(%x: f32[batch, seq, 8], %attention_mask: i64[batch, seq]) {
          %mask_1: bool[batch, seq] = ops.cast(%attention_mask, dtype="bool")
          %y: f32[batch, seq, 8] = ops.where(%mask_1, %x, x2=0.0)
          return %y
        }

        graph Model(%x: f32[batch, seq, 8], %attention_mask: i64[batch, seq]) {
          %y: f32[batch, seq, 8] = call(%x, %attention_mask, graph="Block", path="block")
          return %y
        }

        entry Model
    """
    graphs = dict(program.graphs)
    paths = module_paths(program)
    for name in reversed([graph.name for graph in program.callees_first()]):
        caller = graphs[name]
        movable = _movable(caller)
        nodes = []
        for node in caller:
            if node.op == "call" and any(o in movable for o in node.used):
                sinking = _Sinking(caller, graphs[str(node.attrs["graph"])], node, movable, paths[name])
                node, callee = sinking.run()
                graphs[callee.name] = callee
            nodes.append(node)
        graphs[name] = caller.replaced(nodes).pruned()
    return program.with_graphs(graphs.values())


def _movable(graph: Graph) -> frozenset[str]:
    """Values computed from integer inputs, sizes and constants; inputs themselves are no computation."""
    pure: set[str] = set()
    for node in graph:
        if (
            node.op == "const"
            or (node.op == "input" and not node.tensor.is_floating)
            or (node.level in ("ops", "hub") or node.op == "item")
            and all(o in pure for o in node.used)
        ):
            pure.add(node.name)
    return frozenset(name for name in pure if graph[name].op not in ("input", "const"))


@dataclass
class _Sinking:
    """One call: the producers of its operands go inside, what they read is handed over instead."""

    caller: Graph
    callee: Graph
    call: Node
    movable: frozenset[str]
    path: str
    names: dict[str, str] = field(default_factory=dict)  # value of the caller -> the same value in the callee

    def run(self) -> tuple[Node, Graph]:
        kept = [i for i, o in enumerate(self.call.operands) if not self._sinks(o)]
        wanted = {o for i, o in enumerate(self.call.operands) if i not in kept and o is not None}
        inputs = self.callee.inputs
        self.names = {o: inputs[i].name for i in kept if (o := self.call.operands[i]) is not None}
        copied, leaves = _behind(self.caller, wanted, self.movable)
        added = [leaf for leaf in leaves if self.caller[leaf].op == "input" and leaf not in self.names]
        new = [self._input(leaf) for leaf in added]
        constants = map(self._constant, (leaf for leaf in leaves if self.caller[leaf].op == "const"))
        # One path is one constant, whoever names it from where.
        new += {made.name: made for made in constants if made.name not in self.callee}.values()
        new += [self._copy(name) for name in copied]
        dropped = {inputs[i].name: self.names[o] for i, o in enumerate(self.call.operands) if o in wanted and o}
        order = [inputs[i].name for i in kept] + [self.names[leaf] for leaf in added]
        body = self.callee.replaced([*self.callee, *new]).rewired(redirect=dropped)
        body = body.replaced([*map(body.nodes.__getitem__, order), *(node for node in body if node.op != "input")])
        operands = (*(self.call.operands[i] for i in kept), *added)
        return replace(self.call, operands=operands), body

    def _sinks(self, operand: str | None) -> bool:
        """Whether the operand's producer can be computed inside: its sizes can be read off what the callee gets."""
        if operand not in self.movable:
            return False
        stay = {s for o in self.call.used if o not in self.movable for s in plain_symbols(self.caller[o].type)}
        copied, leaves = _behind(self.caller, {operand}, self.movable)
        have = stay.union(*(plain_symbols(self.caller[leaf].type) for leaf in leaves))
        need = {s for name in copied for value in self.caller[name].attrs.values() for s in names_of(value)}
        return need <= have

    def _input(self, leaf: str) -> Node:
        node = self.caller[leaf]
        return replace(node, name=self._named(leaf))

    def _constant(self, leaf: str) -> Node:
        """The owner is another module: inside, the constant goes by its path from the root."""
        self.names[leaf] = f"@/{join(self.path, leaf[1:])}"
        return replace(self.caller[leaf], name=self.names[leaf])

    def _copy(self, name: str) -> Node:
        node = self.caller[name]
        operands = tuple(o and self.names[o] for o in node.operands)
        return replace(node, name=self._named(name), operands=operands)

    def _named(self, name: str) -> str:
        self.names[name] = self.callee.fresh(name, taken=self.names.values())
        return self.names[name]


def _behind(graph: Graph, wanted: set[str], movable: frozenset[str]) -> tuple[list[str], list[str]]:
    """The movable nodes that `wanted` depend on, in order, and the leaves they read."""
    needed = set(wanted)
    leaves: set[str] = set()
    for node in reversed(graph.nodes.values()):
        if node.name in needed:
            for operand in node.used:
                (needed if operand in movable else leaves).add(operand)
    return [n for n in graph.nodes if n in needed], [n for n in graph.nodes if n in leaves]
