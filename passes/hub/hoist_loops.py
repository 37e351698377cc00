"""Inline the modules between the model and its repeated layers."""

from collections import Counter

from hf2khc.ir.graph import CALLS, Graph, Node, Program, callees
from hf2khc.ir.inline import inline_calls
from hf2khc.passes.hub.layer_sequences import list_of


def hoist_loops(program: Program) -> Program:
    """Put encoders and decoders that hold a loop into their one caller: the layers stand in the model itself.

    KerasHub's backbones own their `transformer_layers`; a stack called from several places stays a module. Layers of
    which each is another computation, and that no loop holds, are no other.

    Before:

        graph Block(%x: f32[batch, 8]) {
          %a: f32[batch, 8] = ops.relu(%x)
          return %a
        }

        graph Encoder(%x: f32[batch, 8]) {
          %c: f32[batch, 8] = loop(%x, graph="Block", path="layer.{i}", start=0, count=2, carry=1)
          return %c
        }

        graph Model(%x: f32[batch, 8]) {
          %y: f32[batch, 8] = call(%x, graph="Encoder", path="encoder")
          return %y
        }

        entry Model

    After:

        graph Block(%x: f32[batch, 8]) {
          %a: f32[batch, 8] = ops.relu(%x)
          return %a
        }

        graph Model(%x: f32[batch, 8]) {
          %c: f32[batch, 8] = loop(%x, graph="Block", path="encoder.layer.{i}", start=0, count=2, carry=1)
          return %c
        }

        entry Model
    """
    nodes = (node for graph in program.graphs.values() for node in graph.of(*CALLS))
    calls = Counter(name for node in nodes for name in callees(node))

    def chosen(callee: Graph, call: Node) -> bool:
        return calls[callee.name] == 1 and (bool(callee.of("loop")) or _is_stack(callee, call))

    return inline_calls(program, chosen)


def _is_stack(callee: Graph, call: Node) -> bool:
    """Whether a module holds a list of layers, and is none of them itself."""
    lists = Counter(filter(None, map(list_of, callee.of("call"))))
    return max(lists.values(), default=0) > 1 and not list_of(call)
