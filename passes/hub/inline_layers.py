"""Inline modules that are a single layer."""

from hf2khc.ir.analysis import weight_values
from hf2khc.ir.graph import LEAVES, Graph, Program
from hf2khc.ir.inline import inline_calls


def inline_layers(program: Program) -> Program:
    """Put the one layer a module consists of in place of its call: Linear, Embedding, norms of the model's own.

    Before:

        graph Linear(%x: f32[batch, 8]) {
          param @weight: f32[8, 8]
          %y: f32[batch, 8] = layers.Dense(%x, @weight, units=8, use_bias=false)
          return %y
        }

        graph MLP(%x: f32[batch, 8]) {
          %h: f32[batch, 8] = call(%x, graph="Linear", path="up")
          return %h
        }

        entry MLP

    After:

        graph MLP(%x: f32[batch, 8]) {
          param @up.weight: f32[8, 8]
          %y: f32[batch, 8] = layers.Dense(%x, @up.weight, units=8, use_bias=false)
          return %y
        }

        entry MLP
    """
    return inline_calls(program, lambda callee, call: _is_one_layer(callee))


def _is_one_layer(graph: Graph) -> bool:
    """Whether a graph is one layer on its inputs, weight expressions aside."""
    layers = [node for node in graph if node.op.startswith("layers.")]
    if len(layers) != 1 or graph.outputs != (layers[0].name,):
        return False
    weights = weight_values(graph)
    return all(node in layers or node.op in LEAVES or node.name in weights for node in graph)
