"""Indexing by whole ranges is a change of layout."""

from hf2khc.ir.expr import same
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.types import Tensor


def index_by_arange(program: Program) -> Program:
    """Turn `x[arange(n)[:, None], arange(m)[None, :]]` over whole axes into unsqueezes.

    transformers broadcasts a padding mask to (batch, 1, 1, seq) that way.

    Before:

        graph Mask(%mask: bool[batch, seq]) {
          %b: i64[batch] = aten.arange(end=batch)
          %b_1: i64[batch, 1] = aten.unsqueeze(%b, dim=1)
          %s: i64[seq] = aten.arange(end=seq)
          %y: bool[batch, seq] = aten.index(%mask, %b_1, %s)
          return %y
        }

        entry Mask

    After:

        graph Mask(%mask: bool[batch, seq]) {
          return %mask
        }

        entry Mask
    """
    return program.map(_unindexed)


def _unindexed(graph: Graph) -> Graph:
    new: list[Node] = []
    redirect: dict[str, str] = {}
    for node in graph.of("aten.index"):
        axes = _output_axes(graph, node)
        if axes is None:
            continue
        name, shape = node.operands[0], list(graph[node.operands[0]].tensor.shape)  # type: ignore[index]
        for axis in range(node.tensor.rank):
            if axis in axes:
                continue
            shape.insert(axis, 1)
            made = graph.fresh(f"{node.name}_axes", taken=[n.name for n in new])
            type_ = Tensor(node.tensor.dtype, tuple(shape))
            new.append(Node(made, "aten.unsqueeze", (name,), {"dim": axis}, type_, node.loc, node.origin))
            name = made
        redirect[node.name] = name  # type: ignore[assignment]
    return graph.rewired(new, redirect) if redirect else graph


def _output_axes(graph: Graph, node: Node) -> list[int] | None:
    """The result's axis that each axis of the source becomes, where every index is a whole range, in order."""
    source, *indices = node.operands
    dims = graph[source].tensor.shape  # type: ignore[index]
    if len(indices) != len(dims):
        return None
    axes = []
    for index, dim in zip(indices, dims, strict=True):
        axis = range_axis(graph, index, dim) if index else None
        if axis is None:
            return None
        axes.append(node.tensor.rank - axis)
    return axes if axes == sorted(set(axes)) else None


def range_axis(graph: Graph, name: str, size) -> int | None:
    """The axis, from the end and from 1, along which a value counts 0 .. size - 1 while the others are constant."""
    node = graph[name]
    if node.op == "aten.arange":
        whole = same(node.attrs.get("end"), size) and node.attrs.get("start", 0) == 0 and node.attrs.get("step", 1) == 1
        return 1 if whole else None
    if node.op == "aten.add" and node.attrs.get("other") == 0 or node.op == "aten.slice" and _whole(node):
        return range_axis(graph, node.used[0], size)
    if node.op != "aten.unsqueeze":
        return None
    axis = range_axis(graph, node.used[0], size)
    behind = -int(node.attrs["dim"]) if int(node.attrs["dim"]) < 0 else node.tensor.rank - int(node.attrs["dim"])  # type: ignore[call-overload]
    return None if axis is None else axis + 1 if behind <= axis else axis


def _whole(node: Node) -> bool:
    end = node.attrs.get("end")
    return node.attrs.get("start") in (0, None) and (end is None or (isinstance(end, int) and end >= 2**62))
