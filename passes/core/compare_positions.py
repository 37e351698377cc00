"""A stored table of who comes before whom is a comparison of positions."""

from collections.abc import Iterator, Mapping

import numpy as np

from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.passes.core.constants import as_value, is_beginning, map_constants, positions
from hf2khc.rewrite.build import Builder


def compare_positions(program: Program) -> Program:
    """Turn triangular constants of booleans, and bands along their diagonal, into comparisons of positions.

    Models keep causal masks as buffers that are as long as the longest sequence and cut them to the length at hand;
    compared at that length they need no data, and are seen for what they are.

    Before:

        graph Mask(%x: f32[batch, seq, 8]) {
          const @bias: bool[1, 1, 4, 4]
          %rows: bool[1, 1, seq, 4] = ops.get_item(@bias, key=("ellipsis", ("slice", none, seq, none), ("slice", none, none, none)))
          %y: bool[1, 1, seq, seq] = ops.get_item(%rows, key=("ellipsis", ("slice", none, seq, none)))
          return %y
        }

        entry Mask
        constant @bias: bool[1, 1, 4, 4] = (true, false, false, false, true, true, false, false, true, true, true, false, true, true, true, true)

    After:

        graph Mask(%x: f32[batch, seq, 8]) {
          %y_queries: i64[seq] = ops.arange(start=0, stop=seq, dtype="int64")
          %y_queries_axes: i64[1, 1, seq, 1] = ops.expand_dims(%y_queries, axis=(0, 1, 3))
          %y_keys: i64[seq] = ops.arange(start=0, stop=seq, dtype="int64")
          %y_keys_axes: i64[1, 1, 1, seq] = ops.expand_dims(%y_keys, axis=(0, 1, 2))
          %y: bool[1, 1, seq, seq] = ops.less_equal(%y_keys_axes, %y_queries_axes)
          return %y
        }

        entry Mask
    """  # noqa: E501
    return map_constants(program, _compared)


def _compared(graph: Graph, values: Mapping[str, np.ndarray]) -> Graph:
    new: list[Node] = []
    redirect: dict[str, str] = {}
    taken: set[str] = set()
    for node in graph.of("const"):
        value = values[node.name]
        window = _window(value[(0,) * (value.ndim - 2)]) if _is_table(value) else None
        if window is None:
            continue
        whole = as_value(graph, node, taken)
        redirect[node.name] = whole.name
        for part in (whole, *_cut_off(graph, node)):
            new += _comparison(Builder(graph, part, "compare_positions", taken=taken), window)
    return graph.rewired(new, redirect) if new else graph


def _is_table(value: np.ndarray) -> bool:
    """Whether an array has a boolean for each pair of positions, the same in every row of a batch and head."""
    return (
        value.dtype.kind == "b" and value.ndim >= 2
        and value.shape[-1] == value.shape[-2] > 1 and value.size == value.shape[-1] ** 2
    )  # fmt: skip


def _window(table: np.ndarray) -> int | None:
    """How many positions, itself the last of them, each row is true for; 0 for all before it, `None` for others."""
    seen = int(table[-1].sum())
    if seen > 0 and np.array_equal(table, np.tri(len(table), dtype=bool) & ~np.tri(len(table), k=-seen, dtype=bool)):
        return 0 if seen == len(table) else seen
    return None


def _cut_off(graph: Graph, node: Node) -> Iterator[Node]:
    """All that is cut off the beginning of a table along some axes."""
    for user in graph.users(node.name):
        key = user.attrs.get("key")
        if user.op == "ops.get_item" and isinstance(key, tuple) and all(map(is_beginning, key)):
            yield user
            yield from _cut_off(graph, user)


def _comparison(builder: Builder, window: int) -> list[Node]:
    """What stands in the place of a part of a table, the root."""
    *_, rows, columns = shape = builder.root.tensor.shape
    queries = positions(builder, "queries", rows, len(shape) - 2, len(shape))
    keys = positions(builder, "keys", columns, len(shape) - 1, len(shape))
    if not window:
        return builder.finish("ops.less_equal", keys, queries)
    before = builder.add("ops.less_equal", keys, queries, title="causal")
    first = builder.add("ops.subtract", queries, x2=window, title="first")
    near = builder.add("ops.greater", keys, first, title="near")
    return builder.finish("ops.logical_and", near, before)
