"""Recognise normalisation with learned scale as Keras layers."""

from collections.abc import Callable

from hf2khc.ir.analysis import weight_values
from hf2khc.ir.graph import Graph, Node, Program


def recognize_norms(program: Program) -> Program:
    """Turn layer and RMS normalisation over the last axis with weights into `layers.*Normalization`.

    A weight expression may stand for the scale: Gemma's `1 + weight` is one. Batch normalisation that a model writes
    out itself is such a layer as well, one that is not trained.

    Before:

        graph Norm(%x: f32[batch, 8]) {
          param @weight: f32[8]
          param @bias: f32[8]
          %y: f32[batch, 8] = ops.layer_normalization(%x, @weight, @bias, axis=-1, epsilon=1e-05)
          return %y
        }

        entry Norm

    After:

        graph Norm(%x: f32[batch, 8]) {
          param @weight: f32[8]
          param @bias: f32[8]
          %y: f32[batch, 8] = layers.LayerNormalization(%x, @weight, @bias, epsilon=1e-05)
          return %y
        }

        entry Norm
    """
    return program.map(_norms)


def _norms(graph: Graph) -> Graph:
    weights = weight_values(graph)
    new = [
        layer
        for node in graph
        if (make := _MAKERS.get(node.op)) is not None and (layer := make(graph, node, weights)) is not None
    ]
    return graph.rewired(new) if new else graph


def _layer_norm(graph: Graph, node: Node, weights: frozenset[str]) -> Node | None:
    x, gamma, beta = (*node.operands, None, None)[:3]
    if not _last_axis(graph, node, gamma, beta, weights):
        return None
    attrs = (
        {"epsilon": node.attrs["epsilon"]} | ({} if gamma else {"scale": False}) | ({} if beta else {"center": False})
    )
    return _layer(node, "layers.LayerNormalization", tuple(o for o in (x, gamma, beta) if o), attrs)


def _rms_norm(graph: Graph, node: Node, weights: frozenset[str]) -> Node | None:
    x, scale = (*node.operands, None)[:2]
    if scale is None or not _last_axis(graph, node, scale, None, weights):
        return None
    return _layer(node, "layers.RMSNormalization", (x, scale), {"epsilon": node.attrs["epsilon"]})


def _batch_norm(graph: Graph, node: Node, weights: frozenset[str]) -> Node | None:
    """Statistics that the model only reads are no others in training: the layer is not trained, nor its weights."""
    x, mean, variance, _, offset, scale = (*node.operands, *(None,) * 6)[:6]
    held = (scale, offset, mean, variance)
    if not all(weight in weights and graph[weight].op == "param" for weight in held):
        return None
    attrs = {"axis": node.attrs["axis"], "epsilon": node.attrs["epsilon"], "trainable": False}
    return _layer(node, "layers.BatchNormalization", (x, *held), attrs)


def _last_axis(graph: Graph, node: Node, gamma: str | None, beta: str | None, weights: frozenset[str]) -> bool:
    last = node.tensor.rank - 1
    axis = node.attrs.get("axis", -1)
    return axis in (-1, last, (-1,), (last,)) and all(
        w is None or (w in weights and graph[w].tensor.rank == 1) for w in (gamma, beta)
    )


def _layer(node: Node, op: str, operands: tuple[str | None, ...], attrs: dict[str, object]) -> Node:
    return Node(node.name, op, operands, attrs, node.type, node.loc, node.origin | {"recognize_norms"})


_MAKERS: dict[str, Callable[[Graph, Node, frozenset[str]], Node | None]] = {
    "ops.layer_normalization": _layer_norm,
    "ops.rms_normalization": _rms_norm,
    "ops.batch_normalization": _batch_norm,
}
