"""Recognise an embedding that is used in both directions."""

from dataclasses import replace

from hf2khc.ir.analysis import weight_values
from hf2khc.ir.graph import Graph, Node, Program


def tie_embeddings(program: Program) -> Program:
    """Turn a look-up in a table and a product with the same table into calls of one `layers.ReversibleEmbedding`.

    Before:

        graph Model(%ids: i64[batch, seq]) {
          param @wte.weight: f32[9, 4]
          %kernel: f32[4, 9] = ops.transpose(@wte.weight)
          %x: f32[batch, seq, 4] = layers.Embedding(%ids, @wte.weight, input_dim=9, output_dim=4)
          %z: f32[batch, seq, 9] = layers.Dense(%x, %kernel, units=9, use_bias=false)
          return %z
        }

        entry Model

    After:

        graph Model(%ids: i64[batch, seq]) {
          param @wte.weight: f32[9, 4]
          %x: f32[batch, seq, 4] = layers.ReversibleEmbedding(%ids, @wte.weight, input_dim=9, output_dim=4)
          %z: f32[batch, seq, 9] = layers.ReversibleEmbedding(%x, @wte.weight, input_dim=9, output_dim=4, reverse=true)
          return %z
        }

        entry Model
    """
    return program.map(_tied)


def _tied(graph: Graph) -> Graph:
    tables = {node.operands[1]: node for node in graph.of("layers.Embedding")}
    new: list[Node] = []
    tied: set[str] = set()
    for dense in graph.of("layers.Dense"):
        kernel = graph[dense.operands[1]]  # type: ignore[index]
        table = kernel.operands[0] if kernel.op == "ops.transpose" and "axes" not in kernel.attrs else None
        if table not in tables or table not in weight_values(graph):
            continue
        tied.add(table)
        new += _reversed(graph, dense, tables[table])
    new += [
        replace(node, op="layers.ReversibleEmbedding", origin=node.origin | {"tie_embeddings"})
        for node in graph.of("layers.Embedding")
        if node.operands[1] in tied
    ]
    return graph.rewired(new) if new else graph


def _reversed(graph: Graph, dense: Node, embedding: Node) -> list[Node]:
    """The product as the embedding in reverse; a bias is added by itself."""
    x, _, *bias = dense.operands
    attrs = {**embedding.attrs, "reverse": True}
    origin = dense.origin | {"tie_embeddings"}
    name = graph.fresh(f"{dense.name}_reverse") if bias else dense.name
    made = [Node(name, "layers.ReversibleEmbedding", (x, embedding.operands[1]), attrs, dense.type, dense.loc, origin)]
    if bias:
        made.append(Node(dense.name, "ops.add", (name, bias[0]), {}, dense.type, dense.loc, origin))
    return made
