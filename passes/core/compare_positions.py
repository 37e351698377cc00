"""A stored table of who comes before whom is a comparison of positions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from hf2khc.ir.analysis import module_paths, without_unused_constants
from hf2khc.ir.graph import Graph, Node, Program, join
from hf2khc.ir.signatures import WHOLE
from hf2khc.ir.types import Tensor, Type


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
    paths = module_paths(program)
    graphs = [_compared(graph, paths[graph.name], program.constants) for graph in program.graphs.values()]
    return without_unused_constants(program.with_graphs(graphs))


def _compared(graph: Graph, path: str, constants: Mapping[str, np.ndarray]) -> Graph:
    new: list[Node] = []
    redirect: dict[str, str] = {}
    for node in graph.of("const"):
        value = constants[join(path, node.name[1:])]
        if not _is_table(value):
            continue
        window = _window(value[(0,) * (value.ndim - 2)])
        if window is None:
            continue
        for part in _parts(graph, node):
            made = _Comparison(graph, part, {n.name for n in new}).nodes(window or None)
            redirect |= {part.name: made[-1].name} if part.op == "const" else {}
            new += made
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


def _parts(graph: Graph, node: Node) -> Iterator[Node]:
    """A table and all that is cut off its beginning along both axes."""
    yield node
    for user in graph.users(node.name):
        if _cuts(user):
            yield from _parts(graph, user)


def _cuts(user: Node) -> bool:
    """Whether a user takes the beginning along some axes, and the whole of the others."""
    key = user.attrs.get("key")
    return user.op == "ops.get_item" and isinstance(key, tuple) and all(map(_is_beginning, key))


def _is_beginning(entry: object) -> bool:
    if entry in (WHOLE, "ellipsis"):
        return True
    return isinstance(entry, tuple) and entry[0] == "slice" and entry[1] in (None, 0) and entry[3] in (None, 1)


@dataclass(frozen=True)
class _Comparison:
    """Builds the comparison that stands in the place of a part of a table."""

    graph: Graph
    part: Node
    taken: set[str]

    def nodes(self, window: int | None) -> list[Node]:
        """The nodes, the last of them in the part's place."""
        rank = self.part.tensor.rank
        base = self.part.name.lstrip("%@").rpartition(".")[2]
        queries = self._positions(f"{base}_queries", rank - 2)
        keys = self._positions(f"{base}_keys", rank - 1)
        made = [*queries, *keys]
        compared = ("ops.less_equal", (keys[-1].name, queries[-1].name))
        if window is not None:
            before = self._node(f"{base}_causal", *compared, {}, self.part.type)
            dtype, shape = queries[-1].tensor.dtype, queries[-1].tensor.shape
            first = self._node(
                f"{base}_first", "ops.subtract", (queries[-1].name,), {"x2": window}, Tensor(dtype, shape)
            )
            near = self._node(f"{base}_near", "ops.greater", (keys[-1].name, first.name), {}, self.part.type)
            made += [before, first, near]
            compared = ("ops.logical_and", (near.name, before.name))
        name = self._fresh(base) if self.part.op == "const" else self.part.name
        return [*made, self._node(name, *compared, {}, self.part.type, named=True)]

    def _positions(self, title: str, axis: int) -> list[Node]:
        """Positions along one axis of the part."""
        rank, size = self.part.tensor.rank, self.part.tensor.shape[axis]
        attrs = {"start": 0, "stop": size, "dtype": "int64"}
        count = self._node(title, "ops.arange", (), attrs, Tensor("int64", (size,)))
        axes = tuple(a for a in range(rank) if a != axis)
        shape = tuple(size if a == axis else 1 for a in range(rank))
        laid = self._node(f"{title}_axes", "ops.expand_dims", (count.name,), {"axis": axes}, Tensor("int64", shape))
        return [count, laid]

    def _node(
        self,
        name: str,
        op: str,
        operands: tuple[str, ...],
        attrs: Mapping[str, object],
        type_: Type,
        named: bool = False,
    ) -> Node:
        origin = self.part.origin | {"compare_positions"}
        return Node(name if named else self._fresh(name), op, operands, attrs, type_, self.part.loc, origin)

    def _fresh(self, title: str) -> str:
        name = self.graph.fresh(title, self.taken)
        self.taken.add(name)
        return name
