"""Constants that count, repeat one number or pick a range are computed, not stored."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.signatures import WHOLE, axis_key
from hf2khc.ir.types import Tensor
from hf2khc.passes.core.constants import as_value, is_beginning, map_constants


def fold_constants(program: Program) -> Program:
    """Turn buffers of position ids into `ops.arange`, those of one integer into `ops.full`, ranges into slices.

    transformers keeps them as long as the longest sequence and cuts them to the length at hand; counted to that length
    they need no data at all. Nor do lists of indices that are a range, `x[:, [-1]]`.

    Before:

        graph Model(%ids: i64[batch, seq]) {
          const @position_ids: i64[1, 4]
          %y: i64[1, seq] = ops.get_item(@position_ids, key=(("slice", none, none, none), ("slice", none, seq, none)))
          return %y
        }

        entry Model
        constant @position_ids: i64[1, 4] = (0, 1, 2, 3)

    After:

        graph Model(%ids: i64[batch, seq]) {
          %y_count: i64[seq] = ops.arange(start=0, stop=seq, dtype="int64")
          %y: i64[1, seq] = ops.expand_dims(%y_count, axis=0)
          return %y
        }

        entry Model
    """
    return map_constants(program, _folded)


def _folded(graph: Graph, values: Mapping[str, np.ndarray]) -> Graph:
    new: list[Node] = []
    redirect: dict[str, str] = {}
    taken: set[str] = set()
    for node in graph.of("const"):
        value = values[node.name]
        if _counts(value):
            for user in graph.users(node.name):
                if _cuts(user):
                    new += _arange(graph, user, new)
            if graph.uses(node.name) > sum(_cuts(user) for user in graph.users(node.name)):
                whole = as_value(graph, node, taken)
                new += _arange(graph, whole, new)
                redirect[node.name] = whole.name
        elif value.size > 1 and value.dtype.kind in "iub" and (value == value.flat[0]).all():
            whole = as_value(graph, node, taken)
            attrs = {"shape": node.tensor.shape, "fill_value": value.flat[0].item(), "dtype": node.tensor.dtype}
            new.append(Node(whole.name, "ops.full", (), attrs, node.type, node.loc, node.origin | {"fold_constants"}))
            redirect[node.name] = whole.name
        elif (entry := _slice(value)) is not None:
            new += [_sliced(graph, user, entry) for user in graph.users(node.name) if _picks(graph, user, node)]
    return graph.rewired(new, redirect) if new else graph


def _counts(value: np.ndarray) -> bool:
    """Whether an array is 0 .. n - 1 along its last axis, all other axes of size 1."""
    one_row = value.ndim > 0 and value.size > 1 and value.size == value.shape[-1]
    return one_row and value.dtype.kind in "iu" and np.array_equal(value.ravel(), np.arange(value.size))


def _cuts(user: Node) -> bool:
    """Whether a user takes the beginning along the last axis."""
    key = user.attrs.get("key")
    if user.op != "ops.get_item" or not isinstance(key, tuple) or not key or not isinstance(key[-1], tuple):
        return False
    *before, last = key
    return all(part in (WHOLE, "ellipsis") for part in before) and isinstance(last, tuple) and is_beginning(last)


def _slice(value: np.ndarray) -> tuple | None:
    """The slice that picks what a list of indices picks; None where they lie unevenly, or on both sides of the end."""
    if value.ndim != 1 or not value.size or value.dtype.kind not in "iu":
        return None
    start, last, step = value[0].item(), value[-1].item(), (value[1] - value[0]).item() if value.size > 1 else 1
    if step < 1 or start < 0 <= last or not np.array_equal(value, np.arange(start, last + 1, step)):
        return None
    return "slice", start or None, last + 1 or None, None if step == 1 else step


def _picks(graph: Graph, user: Node, index: Node) -> bool:
    """Whether a user picks places of a value; rows of a table are looked up."""
    return user.op == "ops.take" and user.operands[1] == index.name and graph[user.used[0]].op != "param"


def _sliced(graph: Graph, take: Node, entry: tuple) -> Node:
    x, rank = take.used[0], graph[take.used[0]].tensor.rank
    attrs = {"key": axis_key(entry, int(str(take.attrs["axis"])) % rank, rank)}
    return replace(take, op="ops.get_item", operands=(x,), attrs=attrs, origin=take.origin | {"fold_constants"})


def _arange(graph: Graph, node: Node, made: list[Node]) -> list[Node]:
    """Nodes that count along the last axis of `node`'s type, the last one under its name."""
    size, rank = node.tensor.shape[-1], node.tensor.rank
    origin = node.origin | {"fold_constants"}
    count = node.name if rank == 1 else graph.fresh(f"{node.name}_count", taken=[n.name for n in made])
    attrs = {"start": 0, "stop": size, "dtype": node.tensor.dtype}
    nodes = [Node(count, "ops.arange", (), attrs, Tensor(node.tensor.dtype, (size,)), node.loc, origin)]
    for axes in range(1, rank):
        name = node.name if axes == rank - 1 else graph.fresh(f"{count}_{axes}")
        type_ = Tensor(node.tensor.dtype, (*(1,) * axes, size))
        nodes.append(Node(name, "ops.expand_dims", (nodes[-1].name,), {"axis": 0}, type_, node.loc, origin))
    return nodes
