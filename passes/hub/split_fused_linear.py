"""Split a Dense layer whose result is only cut into pieces."""

import itertools

from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.types import Tensor, tensors


def split_fused_linear(program: Program) -> Program:
    """Turn a fused projection (one kernel for query, key and value) into one Dense layer per piece.

    The pieces of the kernel become weight expressions, so nothing is copied until the weights are transferred.

    Before:

        graph Attention(%x: f32[batch, seq, 8]) {
          param @c_attn.weight: f32[8, 16]
          %qk: f32[batch, seq, 16] = layers.Dense(%x, @c_attn.weight, units=16, use_bias=false)
          %both: (f32[batch, seq, 8], f32[batch, seq, 8]) = ops.split(%qk, indices_or_sections=2, axis=-1)
          %q: f32[batch, seq, 8] = item(%both, index=0)
          %k: f32[batch, seq, 8] = item(%both, index=1)
          return %q, %k
        }

        entry Attention

    After:

        graph Attention(%x: f32[batch, seq, 8]) {
          param @c_attn.weight: f32[8, 16]
          %q_kernel: f32[8, 8] = ops.get_item(@c_attn.weight, key=("ellipsis", ("slice", 0, 8, none)))
          %q: f32[batch, seq, 8] = layers.Dense(%x, %q_kernel, units=8, use_bias=false)
          %k_kernel: f32[8, 8] = ops.get_item(@c_attn.weight, key=("ellipsis", ("slice", 8, 16, none)))
          %k: f32[batch, seq, 8] = layers.Dense(%x, %k_kernel, units=8, use_bias=false)
          return %q, %k
        }

        entry Attention
    """
    return program.map(_split)


def _split(graph: Graph) -> Graph:
    new: list[Node] = []
    for dense in graph.of("layers.Dense"):
        users = graph.users(dense.name)
        if len(users) != 1 or dense.name in graph.outputs or not _splits_last(users[0]):
            continue
        split = users[0]
        items = graph.users(split.name)
        if split.name in graph.outputs or any(item.op != "item" for item in items):
            continue
        offsets = [0, *itertools.accumulate(int(str(part.shape[-1])) for part in tensors(split.type))]
        if len(set(offsets)) < len(offsets):  # a part of no units is no layer
            continue
        for item in items:
            index = item.attrs["index"]
            new += _piece(graph, dense, item, offsets[index], offsets[index + 1])
    return graph.rewired(new) if new else graph


def _splits_last(node: Node) -> bool:
    if node.op != "ops.split":
        return False
    rank = node.type[0].rank  # type: ignore[index,union-attr]
    return node.attrs.get("axis", 0) in (-1, rank - 1)


def _piece(graph: Graph, dense: Node, item: Node, start: int, stop: int) -> list[Node]:
    """The Dense layer that computes one item, its weight expressions first."""
    x, *weights = dense.operands
    origin = dense.origin | item.origin | {"split_fused_linear"}
    made = []
    for weight, role in zip(weights, ("kernel", "bias"), strict=False):
        whole = graph[weight].tensor  # type: ignore[index]
        type_ = Tensor(whole.dtype, (*whole.shape[:-1], stop - start))
        name = graph.fresh(f"{item.name}_{role}")
        key = ("ellipsis", ("slice", start, stop, None))
        made.append(Node(name, "ops.get_item", (weight,), {"key": key}, type_, dense.loc, origin))
    attrs = {**dense.attrs, "units": stop - start}
    operands = (x, *(node.name for node in made))
    return [*made, Node(item.name, dense.op, operands, attrs, item.type, item.loc or dense.loc, origin)]
