"""Recognise look-ups in a weight as Embedding layers."""

from hf2khc.ir.analysis import weight_values
from hf2khc.ir.graph import Graph, Node, Program


def recognize_embedding(program: Program) -> Program:
    """Turn a take from rows of a weight into `layers.Embedding`.

    Before:

        graph Embedding(%ids: i64[batch, seq]) {
          param @weight: f32[99, 8]
          %x: f32[batch, seq, 8] = ops.take(@weight, %ids, axis=0)
          return %x
        }

        entry Embedding

    After:

        graph Embedding(%ids: i64[batch, seq]) {
          param @weight: f32[99, 8]
          %x: f32[batch, seq, 8] = layers.Embedding(%ids, @weight, input_dim=99, output_dim=8)
          return %x
        }

        entry Embedding
    """
    return program.map(_embedding)


def _embedding(graph: Graph) -> Graph:
    weights = weight_values(graph)
    new = []
    for take in graph.of("ops.take"):
        table, ids = take.operands
        if table not in weights or take.attrs.get("axis") != 0:
            continue
        tensor = graph[table].tensor
        if tensor.rank != 2 or not tensor.is_floating:
            continue
        rows, width = tensor.shape
        attrs = {"input_dim": rows, "output_dim": width}
        origin = take.origin | {"recognize_embedding"}
        new.append(Node(take.name, "layers.Embedding", (ids, table), attrs, take.type, take.loc, origin))
    return graph.rewired(new) if new else graph
