"""Inline modules that are less than a layer by KerasHub's measure."""

from hf2khc.ir.analysis import weight_values
from hf2khc.ir.attention import attention
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.inline import inline_calls

_PROJECTIONS = ("layers.Dense", "layers.EinsumDense")
# A projection with its norm.
_MOST_LAYERS = 2


def inline_fragments(program: Program) -> Program:
    """Put a projection with its dropout, residual and norm, or an attention without a last projection, into the caller.

    transformers' BERT family cuts an attention into `self` and `output`, and a feedforward network into `intermediate`
    and `output`. An attention layer owns its four projections; a class of its own for each cut would be four files for
    one.

    Before:

        graph Output(%x: f32[batch, 8], %residual: f32[batch, 8]) {
          param @dense.weight: f32[8, 8]
          %y: f32[batch, 8] = layers.Dense(%x, @dense.weight, units=8, use_bias=false)
          %z: f32[batch, 8] = ops.add(%y, %residual)
          return %z
        }

        graph Layer(%x: f32[batch, 8]) {
          param @up.weight: f32[8, 8]
          %h: f32[batch, 8] = layers.Dense(%x, @up.weight, units=8, use_bias=false)
          %y: f32[batch, 8] = call(%h, %x, graph="Output", path="output")
          return %y
        }

        entry Layer

    After:

        graph Layer(%x: f32[batch, 8]) {
          param @up.weight: f32[8, 8]
          param @output.dense.weight: f32[8, 8]
          %h: f32[batch, 8] = layers.Dense(%x, @up.weight, units=8, use_bias=false)
          %y_1: f32[batch, 8] = layers.Dense(%h, @output.dense.weight, units=8, use_bias=false)
          %z: f32[batch, 8] = ops.add(%y_1, %x)
          return %z
        }

        entry Layer
    """
    return inline_calls(program, lambda callee, call: any(is_fragment(callee) for is_fragment in _FRAGMENTS))


def _takes_nothing(graph: Graph) -> bool:
    """Whether a module only looks something up in itself: a layer needs an input."""
    return not graph.inputs


def _is_lone_projection(graph: Graph) -> bool:
    weights = weight_values(graph)
    layers = [node for node in graph if node.level == "layers" and any(o in weights for o in node.used)]
    projections = [node for node in layers if node.op in _PROJECTIONS]
    simple = not graph.of("call", "scan") and attention(graph) is None
    return simple and len(projections) == 1 and len(layers) <= _MOST_LAYERS and not _has_bare_parameters(graph, weights)


def _has_bare_parameters(graph: Graph, weights: frozenset[str]) -> bool:
    """Whether an operation on data reads a parameter itself; it then needs a class to belong to."""
    data = (node for node in graph if node.level == "ops" and node.name not in weights)
    return any(o in weights for node in data for o in node.used)


def _is_attention_core(graph: Graph) -> bool:
    """Whether the graph attends and hands the result on without projecting it."""
    attended = attention(graph)
    return attended is not None and not graph.of("call", "scan") and not _reaches_projection(graph, graph[attended[-1]])


def _reaches_projection(graph: Graph, node: Node) -> bool:
    return any(user.op in _PROJECTIONS or _reaches_projection(graph, user) for user in graph.users(node.name))


_FRAGMENTS = (_takes_nothing, _is_lone_projection, _is_attention_core)
