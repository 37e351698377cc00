"""Name the inputs of modules after what their callers hand over."""

from collections.abc import Collection
from dataclasses import replace

from hf2khc.ir.graph import Graph, Program

_GENERIC = ("hidden_states",)


def name_inputs(program: Program) -> Program:
    """Give each input of a graph the name of the value its first caller passes, callers first.

    A trace names inputs after the op that made them; the model's source names them after their role.

    Before:

        graph Block(%mul_4: f32[batch, 8]) {
          %a: f32[batch, 8] = ops.relu(%mul_4)
          return %a
        }

        graph Model(%hidden_states: f32[batch, 8]) {
          %b: f32[batch, 8] = call(%hidden_states, graph="Block", path="b")
          return %b
        }

        entry Model

    After:

        graph Block(%hidden_states: f32[batch, 8]) {
          %a: f32[batch, 8] = ops.relu(%hidden_states)
          return %a
        }

        graph Model(%hidden_states: f32[batch, 8]) {
          %b: f32[batch, 8] = call(%hidden_states, graph="Block", path="b")
          return %b
        }

        entry Model
    """
    graphs = dict(program.graphs)
    done = {program.entry}
    for name in reversed([graph.name for graph in program.callees_first()]):
        for call in graphs[name].of("call", "loop"):
            callee = str(call.attrs["graph"])
            if callee not in done:
                done.add(callee)
                graphs[callee] = _renamed(graphs[callee], [_title(graphs[name], o) for o in call.operands if o])
    return program.with_graphs(graphs.values())


def _title(graph: Graph, operand: str) -> str:
    """What a callee calls an operand; the stream that runs through the layers is `hidden_states` everywhere."""
    node = graph[operand]
    computed = node.level in ("ops", "layers") or node.op in ("call", "loop", "item")
    return _GENERIC[0] if computed and node.tensor.is_floating and node.tensor.rank == 3 else operand


def _renamed(graph: Graph, titles: list[str]) -> Graph:
    """The graph with its inputs named so; a value inside that has the name already makes way."""
    names: dict[str, str] = {}
    for node, title in zip(graph.inputs, titles, strict=True):
        names[node.name] = _unused(title, names.values())
    for node in graph:
        if node.name not in names and node.name in names.values():
            names[node.name] = _unused(node.name, {*graph.nodes, *names.values()})
    nodes = [
        replace(
            node, name=names.get(node.name, node.name), operands=tuple(o and names.get(o, o) for o in node.operands)
        )
        for node in graph
    ]
    return graph.replaced(nodes, outputs=[names.get(o, o) for o in graph.outputs])


def _unused(base: str, taken: Collection[str]) -> str:
    name, n = base, 0
    while name in taken:
        n += 1
        name = f"{base}_{n}"
    return name
