"""Give layers of several kinds in one list the same inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.types import same_type
from hf2khc.passes.hub.layer_sequences import is_aligned, mixed_sequences


def align_layers(program: Program) -> Program:
    """Where kinds of layers alternate, all take what any of them takes: what runs through them first.

    They can then be called in one loop. A kind that does not need a value has an input that nothing reads.

    Before:

        graph Full(%x: f32[batch, 8]) {
          %y: f32[batch, 8] = ops.tanh(%x)
          return %y
        }

        graph Masked(%mask: bool[batch, 8], %x: f32[batch, 8]) {
          %y: f32[batch, 8] = ops.where(%mask, %x, x2=0.0)
          return %y
        }

        graph Model(%x: f32[batch, 8], %mask: bool[batch, 8]) {
          %a: f32[batch, 8] = call(%x, graph="Full", path="h.0")
          %b: f32[batch, 8] = call(%mask, %a, graph="Masked", path="h.1")
          %c: f32[batch, 8] = call(%b, graph="Full", path="h.2")
          return %c
        }

        entry Model

    After:

        graph Full(%x: f32[batch, 8], %mask: bool[batch, 8]) {
          %y: f32[batch, 8] = ops.tanh(%x)
          return %y
        }

        graph Masked(%x: f32[batch, 8], %mask: bool[batch, 8]) {
          %y: f32[batch, 8] = ops.where(%mask, %x, x2=0.0)
          return %y
        }

        graph Model(%x: f32[batch, 8], %mask: bool[batch, 8]) {
          %a: f32[batch, 8] = call(%x, %mask, graph="Full", path="h.0")
          %b: f32[batch, 8] = call(%a, %mask, graph="Masked", path="h.1")
          %c: f32[batch, 8] = call(%b, %mask, graph="Full", path="h.2")
          return %c
        }

        entry Model
    """
    for name in list(program.graphs):
        for calls in mixed_sequences(program.graphs[name]):
            found = None if is_aligned(calls) else _alignment(program, program.graphs[name], calls)
            if found is not None:
                program = found.applied(program, name)
    return program


@dataclass(frozen=True)
class _Alignment:
    """The calls of one sequence, what they share, and which input of each kind each shared value is."""

    calls: Sequence[Node]
    shared: tuple[str, ...]
    roles: Mapping[
        str, tuple[str | None, ...]
    ]  # by kind, for each of its inputs: a shared value, or None for the stream

    def applied(self, program: Program, caller: str) -> Program:
        types = {value: self._declared(program, value) for value in self.shared}
        graphs = {
            name: _with_inputs(program.graphs[name], roles, self.shared, types) for name, roles in self.roles.items()
        }
        called = {
            call.name: replace(call, operands=(call.operands[self._stream(call)], *self.shared)) for call in self.calls
        }
        graph = program.graphs[caller]
        graphs[caller] = graph.replaced([called.get(node.name, node) for node in graph])
        return program.with_graphs({**program.graphs, **graphs}.values())

    def _stream(self, call: Node) -> int:
        return self.roles[str(call.attrs["graph"])].index(None)

    def _declared(self, program: Program, value: str) -> Node:
        """The input of the first kind that takes a value."""
        name, roles = next((name, roles) for name, roles in self.roles.items() if value in roles)
        return program.graphs[name].inputs[roles.index(value)]


def _alignment(program: Program, graph: Graph, calls: Sequence[Node]) -> _Alignment | None:
    """How the calls can be aligned, `None` where a kind takes different values at one place or is called elsewhere."""
    names = {call.name for call in calls}
    roles: dict[str, tuple[str | None, ...]] = {}
    for call in reversed(calls):  # only the first has to be told what the stream is
        kind = str(call.attrs["graph"])
        found = tuple(None if o in names else o for o in call.operands)
        if None not in found:
            found = _first_roles(graph, call, roles)
        if found.count(None) != 1 or len(set(found)) != len(found) or roles.setdefault(kind, found) != found:
            return None
    elsewhere = [
        call for other in program.graphs.values() for call in other.of("call")
        if call.attrs["graph"] in roles and not (other is graph and call.name in names)
    ]  # fmt: skip
    if elsewhere:
        return None
    shared = dict.fromkeys(value for kind in reversed(roles.values()) for value in kind if value is not None)
    return _Alignment(calls, tuple(shared), roles)


def _first_roles(graph: Graph, call: Node, roles: Mapping[str, tuple[str | None, ...]]) -> tuple[str | None, ...]:
    """The first layer's: as in those of its kind that follow, or the one value of its type that no other kind takes."""
    known = roles.get(str(call.attrs["graph"]))
    if known is not None:
        return tuple(None if k is None else o for k, o in zip(known, call.operands, strict=True))
    taken = {value for kind in roles.values() for value in kind}
    return tuple(None if o not in taken and o and same_type(graph[o].type, call.type) else o for o in call.operands)


def _with_inputs(graph: Graph, roles: Sequence[str | None], shared: Sequence[str], types: Mapping[str, Node]) -> Graph:
    own = dict(zip(roles, graph.inputs, strict=True))
    inputs = [own[None]]
    for value in shared:
        given = own.get(value)
        if given is None:
            name = graph.fresh(types[value].name, taken=[node.name for node in inputs])
            given = replace(types[value], name=name)
        inputs.append(given)
    return graph.replaced([*inputs, *(node for node in graph if node.op != "input")])
