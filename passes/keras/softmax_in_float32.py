"""Compute softmax, Fourier transforms and linear systems in float32, whatever the dtype policy."""

from collections.abc import Collection
from dataclasses import replace

from hf2khc.ir.graph import Graph, Node, Program

_WIDE = ("ops.fft", "ops.fft2", "ops.ifft2", "ops.rfft", "ops.irfft", "ops.solve_triangular")


def softmax_in_float32(program: Program) -> Program:
    """Cast to float32 what a softmax, Fourier transform or linear system takes, scores before they are masked.

    transformers asks for a softmax in float32 with an argument that changes nothing in a model of float32, and the
    lowest float32 that masks a key is no number in half the bits: a row of nothing else would have no softmax. What
    follows is in the dtype of the values again. Fourier transforms and triangular systems no backend has in half the
    bits.

    Before:

        graph Weights(%scores: f32[batch, 2, seq, seq], %mask: bool[1, 1, seq, seq]) {
          %masked: f32[batch, 2, seq, seq] = ops.where(%mask, %scores, x2=-3e+38)
          %y: f32[batch, 2, seq, seq] = ops.softmax(%masked, axis=-1)
          return %y
        }

        entry Weights

    After:

        graph Weights(%scores: f32[batch, 2, seq, seq], %mask: bool[1, 1, seq, seq]) {
          %scores_1: f32[batch, 2, seq, seq] = ops.cast(%scores, dtype="float32")
          %masked: f32[batch, 2, seq, seq] = ops.where(%mask, %scores_1, x2=-3e+38)
          %y: f32[batch, 2, seq, seq] = ops.softmax(%masked, axis=-1)
          return %y
        }

        entry Weights
    """
    return program.map(_cast)


def _cast(graph: Graph) -> Graph:
    new: dict[str, Node] = {}
    for softmax in graph.of("ops.softmax", "ops.log_softmax"):
        node = _masking(graph, softmax)
        position = _position(graph, node)
        source = graph[node.operands[position] or ""]
        if source.attrs.get("dtype") == "float32" or node.name in new:
            continue
        cast = _in_float32(graph, source, softmax, new)
        operands = tuple(cast.name if i == position else o for i, o in enumerate(node.operands))
        new |= {cast.name: cast, node.name: replace(node, operands=operands)}
    for wide in graph.of(*_WIDE):
        narrow = [part for part in wide.used if graph[part].attrs.get("dtype") != "float32"]
        casts = {part: _in_float32(graph, graph[part], wide, new) for part in narrow}
        new |= {cast.name: cast for cast in casts.values()}
        operands = tuple(casts[part].name if part in casts else part for part in wide.used)
        new[wide.name] = replace(wide, operands=operands)
    return graph.rewired(new.values()) if new else graph


def _in_float32(graph: Graph, source: Node, user: Node, taken: Collection[str]) -> Node:
    name = graph.fresh(source.name.rpartition(".")[2].lstrip("@/"), taken=taken)
    origin = user.origin | {"softmax_in_float32"}
    return Node(name, "ops.cast", (source.name,), {"dtype": "float32"}, source.type, user.loc, origin)


def _masking(graph: Graph, softmax: Node) -> Node:
    """The first of the nodes that only mask the scores of a softmax; the softmax itself where none does."""
    node = softmax
    while True:
        source = graph[node.operands[_position(graph, node)] or ""]
        if source.op != "ops.where" or graph.uses(source.name) != 1:
            return node
        scores = source.operands[_position(graph, source)] if len(source.operands) > 1 else None
        if scores is None or not graph[scores].tensor.is_floating:
            return node
        node = source


def _position(graph: Graph, node: Node) -> int:
    """Which operand has the scores: of a choice the one of its shape, which a number for what is masked has not."""
    if node.op != "ops.where":
        return 0
    places = [i for i, o in enumerate(node.operands) if i and o and graph[o].tensor.rank == node.tensor.rank]
    return places[0] if places else 1
