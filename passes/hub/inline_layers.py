"""Inline modules that are a single layer."""

from hf2khc.ir.analysis import weight_values
from hf2khc.ir.graph import LEAVES, Graph, Program
from hf2khc.ir.inline import inline_calls

# A convolution stands between transposes to Keras's layout and back, and its padding.
_LAYOUT = ("ops.transpose", "ops.pad")


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
    """Whether a graph is one layer on its inputs, weight expressions and changes of layout aside."""
    layers = [node for node in graph if node.op.startswith("layers.")]
    weights = weight_values(graph)
    around = (node for node in graph if node not in layers and node.op not in LEAVES and node.name not in weights)
    return len(layers) == 1 and len(graph.outputs) == 1 and all(node.op in _LAYOUT for node in around)
