"""Recognise projections to and from attention heads."""

from hf2khc.ir.expr import same
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.types import Tensor


def project_heads(program: Program) -> Program:
    """Turn Dense layers whose result is split into heads, or whose input merges heads, into `layers.EinsumDense`.

    KerasHub's attention kernels are (hidden, heads, head_dim) and (heads, head_dim, hidden); sharding and LoRA look for
    them.

    Before:

        graph Attention(%x: f32[batch, seq, 8]) {
          param @q.weight: f32[8, 12]
          param @o.weight: f32[12, 8]
          %q: f32[batch, seq, 12] = layers.Dense(%x, @q.weight, units=12, use_bias=false)
          %heads: f32[batch, seq, 3, 4] = ops.reshape(%q, newshape=(batch, seq, -1, 4))
          %flat: f32[batch, seq, 12] = ops.reshape(%heads, newshape=(batch, seq, -1))
          %o: f32[batch, seq, 8] = layers.Dense(%flat, @o.weight, units=8, use_bias=false)
          return %o
        }

        entry Attention

    After:

        graph Attention(%x: f32[batch, seq, 8]) {
          param @q.weight: f32[8, 12]
          param @o.weight: f32[12, 8]
          %heads_kernel: f32[8, 3, 4] = ops.reshape(@q.weight, newshape=(8, 3, 4))
          %heads: f32[batch, seq, 3, 4] = layers.EinsumDense(%x, %heads_kernel, equation="bqm,muh->bquh", output_shape=(none, 3, 4))
          %o_kernel: f32[3, 4, 8] = ops.reshape(@o.weight, newshape=(3, 4, 8))
          %o: f32[batch, seq, 8] = layers.EinsumDense(%heads, %o_kernel, equation="bquh,uhm->bqm", output_shape=(none, 8))
          return %o
        }

        entry Attention
    """  # noqa: E501
    return program.map(lambda graph: _from_heads(_to_heads(graph)))


def _to_heads(graph: Graph) -> Graph:
    new: list[Node] = []
    for dense in graph.of("layers.Dense"):
        users = graph.users(dense.name)
        if len(users) != 1 or dense.name in graph.outputs or users[0].op != "ops.reshape":
            continue
        heads, x = users[0], graph[dense.used[0]]
        if not _splits_last_axis(dense.tensor, heads.tensor):
            continue
        count, width = heads.tensor.shape[2:]
        kernel = _reshaped(graph, dense, 1, f"{heads.name}_kernel", (x.tensor.shape[-1], count, width))
        made = [kernel]
        attrs = {"equation": "bqm,muh->bquh", "output_shape": (None, count, width)}
        if len(dense.operands) > 2:
            made.append(_reshaped(graph, dense, 2, f"{heads.name}_bias", (count, width)))
            attrs["bias_axes"] = "uh"
        new += [*made, _einsum_dense(heads, dense, (x.name, *(n.name for n in made)), attrs)]
    return graph.rewired(new) if new else graph


def _from_heads(graph: Graph) -> Graph:
    new: list[Node] = []
    for dense in graph.of("layers.Dense"):
        flat = graph[dense.used[0]]
        if flat.op != "ops.reshape" or not _splits_last_axis(flat.tensor, graph[flat.used[0]].tensor):
            continue
        heads = graph[flat.used[0]]
        count, width = heads.tensor.shape[2:]
        units = dense.tensor.shape[-1]
        kernel = _reshaped(graph, dense, 1, f"{dense.name}_kernel", (count, width, units))
        attrs = {"equation": "bquh,uhm->bqm", "output_shape": (None, units)}
        if len(dense.operands) > 2:
            attrs["bias_axes"] = "m"
        new += [kernel, _einsum_dense(dense, flat, (heads.name, kernel.name, *dense.operands[2:]), attrs)]
    return graph.rewired(new) if new else graph


def _splits_last_axis(flat: Tensor, heads: Tensor) -> bool:
    """Whether (batch, seq, heads * width) and (batch, seq, heads, width) differ by the last axis alone."""
    return (
        flat.rank == 3
        and heads.rank == 4
        and all(isinstance(d, int) for d in heads.shape[2:])
        and all(map(same, flat.shape[:2], heads.shape[:2]))
    )


def _reshaped(graph: Graph, dense: Node, position: int, name: str, shape: tuple) -> Node:
    weight = dense.operands[position]
    type_ = Tensor(graph[weight].tensor.dtype, shape)  # type: ignore[index]
    return Node(graph.fresh(name), "ops.reshape", (weight,), {"newshape": shape}, type_, dense.loc, dense.origin)


def _einsum_dense(root: Node, inner: Node, operands: tuple, attrs: dict) -> Node:
    origin = root.origin | inner.origin | {"project_heads"}
    return Node(root.name, "layers.EinsumDense", operands, attrs, root.type, root.loc or inner.loc, origin)
