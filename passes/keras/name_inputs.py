"""Name the inputs of modules after what their callers hand over."""

import re
from collections.abc import Mapping
from dataclasses import replace

from hf2khc.ir.analysis import repeated_graphs
from hf2khc.ir.graph import CALLS, LEAVES, Graph, Node, Program, callees, numbered, scan_parts, value_name
from hf2khc.passes.keras.vocabulary import INPUT_NAMES

_GENERIC = ("hidden_states",)


def name_inputs(program: Program) -> Program:
    """Give each input of a graph the name of the value its first caller passes, callers first, and put them in order.

    A trace names inputs after the op that made them; the model's source names them after their role, and KerasHub has
    names of its own for those of the model. They come last, in the order in which the model takes them.

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
    asked = [INPUT_NAMES.get(node.name, node.name) for node in program.main.inputs]
    done = {program.entry}
    for name in reversed([graph.name for graph in program.callees_first()]):
        for call in graphs[name].of(*CALLS):
            for callee in callees(call):
                if callee not in done:
                    done.add(callee)
                    titles = [_title(graphs[name], o, name == program.entry) for o in call.operands if o]
                    if call.op == "scan":
                        titles = _of_one_entry(graphs[name], graphs[callee], call)
                    graphs[callee] = _renamed(graphs[callee], titles)
    orders = {name: _order(graph, asked) for name, graph in graphs.items() if name != program.entry}
    for name in repeated_graphs(program):
        orders.pop(name, None)  # what it carries stands in front
    return program.with_graphs(_reordered(graph, orders) for graph in graphs.values())


def _title(graph: Graph, operand: str, entry: bool) -> str:
    """What a callee calls an operand; the stream that runs through the layers is `hidden_states` everywhere."""
    node = graph[operand]
    if entry and node.op == "input":
        return INPUT_NAMES.get(operand, operand)
    if node.op in LEAVES:  # a parameter or a constant that is handed over goes by its path
        return value_name(operand)
    computed = node.level in ("ops", "layers") or node.op in (*CALLS, "item")
    return _GENERIC[0] if computed and node.tensor.is_floating and node.tensor.rank == 3 else operand


def _of_one_entry(graph: Graph, callee: Graph, scan: Node) -> list[str]:
    """What the graph of one entry calls its inputs: what it reads of the entry before is its state."""
    carried, sequences, shared = scan_parts(scan, scan.operands)
    states = ["state" if callee.uses(node.name) else "result" for node in callee.inputs[: len(carried)]]
    return [*states, *(value_name(operand) for operand in (*sequences, *shared) if operand)]


def _order(graph: Graph, asked: list[str]) -> list[int]:
    """Positions of the inputs: what was computed before inputs of the model, and those in the model's own order."""
    names = [re.sub(r"_\d+$", "", node.name) for node in graph.inputs]
    return sorted(range(len(names)), key=lambda i: asked.index(names[i]) if names[i] in asked else -1)


def _reordered(graph: Graph, orders: Mapping[str, list[int]]) -> Graph:
    inputs = [graph.inputs[i] for i in orders[graph.name]] if graph.name in orders else graph.inputs
    return graph.replaced([*inputs, *(_called(node, orders) for node in graph if node.op != "input")])


def _called(node: Node, orders: Mapping[str, list[int]]) -> Node:
    order = orders.get(str(node.attrs.get("graph", ""))) if node.op == "call" else None
    return node if order is None else replace(node, operands=tuple(node.operands[i] for i in order))


def _renamed(graph: Graph, titles: list[str]) -> Graph:
    """The graph with its inputs named so; a value inside that has the name already makes way."""
    names: dict[str, str] = {}
    for node, title in zip(graph.inputs, titles, strict=True):
        names[node.name] = numbered(title, names.values())
    for node in graph:
        if node.name not in names and node.name in names.values():
            names[node.name] = numbered(node.name, {*graph.nodes, *names.values()})
    return graph.renamed(names)
