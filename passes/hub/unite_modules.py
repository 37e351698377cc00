"""Let a module that does different things in two calls be one set of layers."""

from collections import defaultdict

from hf2khc.ir.analysis import has_parameters
from hf2khc.ir.graph import Node, Program
from hf2khc.ir.inline import inline_calls
from hf2khc.passes.hub.simplify import once


def unite_modules(program: Program) -> Program:
    """Dissolve a module whose calls are not one computation: its layers are called by the caller, each as often.

    A graph per call would be a layer per call, each with weights of its own. What the module holds may differ from call
    to call in turn; then that is dissolved as well.

    Before:

        graph Predictor(%x: f32[batch, 8]) {
          param @weight: f32[8, 4]
          %y: f32[batch, 4] = layers.Dense(%x, @weight, units=4, use_bias=false)
          %z: f32[batch, 4] = ops.relu(%y)
          return %z
        }

        graph Predictor_1(%x: f32[batch, 8]) of Predictor {
          param @weight: f32[8, 4]
          %y: f32[batch, 4] = layers.Dense(%x, @weight, units=4, use_bias=false)
          return %y
        }

        graph Model(%x: f32[batch, 8]) {
          %a: f32[batch, 4] = call(%x, graph="Predictor", path="head")
          %w: f32[batch, 8] = ops.tanh(%x)
          %b: f32[batch, 4] = call(%w, graph="Predictor_1", path="head")
          %c: f32[batch, 4] = ops.add(%a, %b)
          return %c
        }

        entry Model

    After:

        graph Model(%x: f32[batch, 8]) {
          param @head.weight: f32[8, 4]
          %w: f32[batch, 8] = ops.tanh(%x)
          %y: f32[batch, 4] = layers.Dense(%x, @head.weight, units=4, use_bias=false)
          %z: f32[batch, 4] = ops.relu(%y)
          %y_1: f32[batch, 4] = layers.Dense(%w, @head.weight, units=4, use_bias=false)
          %c: f32[batch, 4] = ops.add(%z, %y_1)
          return %c
        }

        entry Model
    """
    while divided := _divided(program):
        program = inline_calls(program, lambda callee, call: (callee.name, call.attrs["path"]) in divided).map(once)
    return program


def _divided(program: Program) -> set[tuple[str, str]]:
    """Graphs and paths of the calls of modules with parameters that are called in more than one way."""
    owns = has_parameters(program)
    found: set[tuple[str, str]] = set()
    for graph in program.graphs.values():
        ways: dict[str, list[Node]] = defaultdict(list)
        for call in graph.of("call"):
            if call.attrs["path"] and owns[str(call.attrs["graph"])]:
                ways[str(call.attrs["path"])].append(call)
        for path, calls in ways.items():
            if any(call.attrs != calls[0].attrs for call in calls):
                found.update((str(call.attrs["graph"]), path) for call in calls)
    return found
