"""Bring modules into one order."""

from dataclasses import replace

from hf2khc.ir.analysis import repeated_graphs
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.order import asked_order, ordered


def order_values(program: Program) -> Program:
    """Put inputs and values of every module in the order in which its results ask for them.

    The trace has them in an order that depends on where a module stands: the second of two equal layers takes the bias
    that the first one left before the activations, which are newer. In one order, modules that compute the same are the
    same.

    Before:

        graph Block(%bias: f32[4], %x: f32[batch, seq, 4]) {
          %b: f32[4] = ops.relu(%bias)
          %a: f32[batch, seq, 4] = ops.relu(%x)
          %y: f32[batch, seq, 4] = ops.add(%a, %b)
          return %y
        }

        graph Model(%bias: f32[4], %x: f32[batch, seq, 4]) {
          %y: f32[batch, seq, 4] = call(%bias, %x, graph="Block", path="block")
          return %y
        }

        entry Model

    After:

        graph Block(%x: f32[batch, seq, 4], %bias: f32[4]) {
          %a: f32[batch, seq, 4] = ops.relu(%x)
          %b: f32[4] = ops.relu(%bias)
          %y: f32[batch, seq, 4] = ops.add(%a, %b)
          return %y
        }

        graph Model(%bias: f32[4], %x: f32[batch, seq, 4]) {
          %y: f32[batch, seq, 4] = call(%x, %bias, graph="Block", path="block")
          return %y
        }

        entry Model
    """
    graphs = dict(program.graphs)
    orders: dict[str, list[int]] = {}
    repeated = repeated_graphs(program)
    for graph in program.callees_first():
        graph = graph.replaced([_called(node, orders) for node in graph])
        if graph.name != program.entry:
            names = asked_order(graph)
            kept = list(range(len(graph.inputs)))
            orders[graph.name] = kept if graph.name in repeated else _input_order(graph, names)
            inputs = [graph.inputs[i] for i in orders[graph.name]]
            graph = graph.replaced([*inputs, *(node for node in ordered(graph, names) if node.op != "input")])
        graphs[graph.name] = graph
    return program.with_graphs(graphs.values())


def _called(node: Node, orders: dict[str, list[int]]) -> Node:
    if node.op != "call":
        return node
    return replace(node, operands=tuple(node.operands[i] for i in orders[str(node.attrs["graph"])]))


def _input_order(graph: Graph, names: list[str]) -> list[int]:
    """Positions of the inputs as they are asked for; those nobody asks for come last."""
    rank = {name: i for i, name in enumerate(names)}
    return sorted(range(len(graph.inputs)), key=lambda i: rank.get(graph.inputs[i].name, len(names)))
