"""Recognise projections to and from attention heads."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator

from hf2khc.ir.analysis import spelled_out
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
    for dense, heads in _together(graph, _split(graph)):
        x = graph[dense.used[0]]
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
    for dense, heads in _together(graph, _merged(graph)):
        count, width = heads.tensor.shape[2:]
        units = dense.tensor.shape[-1]
        kernel = _reshaped(graph, dense, 1, f"{dense.name}_kernel", (count, width, units))
        attrs = {"equation": "bquh,uhm->bqm", "output_shape": (None, units)}
        if len(dense.operands) > 2:
            attrs["bias_axes"] = "m"
        new += [
            kernel, _einsum_dense(dense, graph[dense.used[0]], (heads.name, kernel.name, *dense.operands[2:]), attrs)
        ]  # fmt: skip
    return graph.rewired(new) if new else graph


def _split(graph: Graph) -> Iterator[tuple[Node, Node]]:
    """Projections whose result is split into heads, and nothing else, with the heads."""
    for dense in graph.of("layers.Dense"):
        heads, *others = graph.users(dense.name) or [dense]
        alone = not others and dense.name not in graph.outputs
        if alone and heads.op == "ops.reshape" and _splits_last_axis(dense.tensor, heads.tensor):
            yield dense, heads


def _merged(graph: Graph) -> Iterator[tuple[Node, Node]]:
    """Projections of merged heads, with the heads."""
    for dense in graph.of("layers.Dense"):
        flat = graph[dense.used[0]]
        if flat.op == "ops.reshape" and _splits_last_axis(flat.tensor, graph[flat.used[0]].tensor):
            yield dense, graph[flat.used[0]]


def _together(graph: Graph, found: Iterable[tuple[Node, Node]]) -> list[tuple[Node, Node]]:
    """Without those that share a kernel with a projection of another form: calls of one layer stay calls of one."""
    pairs = list(found)
    forms: dict[Hashable, list[object]] = defaultdict(list)
    heads = {dense.name: heads.tensor.shape[2:] for dense, heads in pairs}
    for dense in graph.of("layers.Dense", "layers.EinsumDense"):
        forms[spelled_out(graph, dense.used[1])].append(heads.get(dense.name))
    return [(dense, h) for dense, h in pairs if len(set(forms[spelled_out(graph, dense.used[1])])) == 1]


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
