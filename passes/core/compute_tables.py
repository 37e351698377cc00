"""A stored table of numbers that rise evenly along grids is computed."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from hf2khc.ir.analysis import module_paths, without_unused_constants
from hf2khc.ir.graph import Graph, Node, Program, join
from hf2khc.ir.types import Tensor

# Shorter ones say more as they are.
LEAST = 9


def compute_tables(program: Program) -> Program:
    """Turn constant integers that are sums of positions along axes, or along grids laid out in an axis, into sums.

    The distances between the pixels of a window in two dimensions are such a table (Liu et al., Swin Transformer, 2021;
    3.2), and so are the rows and columns of patches. Computed, they follow the size of the window.

    Before:

        graph Rows(%x: f32[batch, 9]) {
          const @rows: i64[9]
          return @rows
        }

        entry Rows
        constant @rows: i64[9] = (1, 1, 1, 3, 3, 3, 5, 5, 5)

    After:

        graph Rows(%x: f32[batch, 9]) {
          %rows_0: i64[3] = ops.arange(start=0, stop=3, dtype="int64")
          %rows_0_steps: i64[3] = ops.multiply(%rows_0, x2=2)
          %rows_0_axes: i64[3, 1] = ops.expand_dims(%rows_0_steps, axis=(1,))
          %rows_start: i64[3, 1] = ops.add(%rows_0_axes, x2=1)
          %rows_grid: i64[3, 3] = ops.broadcast_to(%rows_start, shape=(3, 3))
          %rows: i64[9] = ops.reshape(%rows_grid, newshape=(9,))
          return %rows
        }

        entry Rows
    """
    paths = module_paths(program)
    graphs = [_computed(graph, paths[graph.name], program.constants) for graph in program.graphs.values()]
    return without_unused_constants(program.with_graphs(graphs))


def _computed(graph: Graph, path: str, constants: Mapping[str, np.ndarray]) -> Graph:
    new: list[Node] = []
    redirect: dict[str, str] = {}
    for node in graph.of("const"):
        value = constants[join(path, node.name[1:])]
        digits = _digits(value) if value.dtype.kind in "iu" and value.size >= LEAST else None
        if digits is not None:
            made = _Sum(graph, node, {n.name for n in new}).nodes(digits, int(value.flat[0]))
            redirect[node.name] = made[-1].name
            new += made
    return graph.rewired(new, redirect) if new else graph


@dataclass(frozen=True)
class _Digit:
    """A place of the mixed radix in which a table counts: `step` is added `size` times."""

    size: int
    step: int


def _digits(value: np.ndarray) -> list[_Digit] | None:
    """The places whose sum a table is, the slowest first; `None` where it is none."""
    wide = value.astype(np.int64) - int(value.flat[0])
    found: list[_Digit] = []
    total = np.zeros((), dtype=np.int64)
    for axis, size in enumerate(value.shape):
        line = wide[tuple(slice(None) if a == axis else 0 for a in range(value.ndim))]
        digits = list(_places(line)) if size > 1 else [_Digit(1, 0)]
        if math.prod(digit.size for digit in digits) != size:
            return None
        found += digits[::-1]
        total = total[..., None] + line
    return found if np.array_equal(total, wide) and any(digit.step for digit in found) else None


def _places(line: np.ndarray) -> Iterator[_Digit]:
    """The places in which a sequence from 0 on counts, the fastest first; those of others do not multiply to it."""
    while len(line) > 1:
        step = int(line[1])
        even = np.flatnonzero(line != step * np.arange(len(line)))
        size = int(even[0]) if len(even) else len(line)
        if len(line) % size or not np.array_equal(line.reshape(-1, size), line[::size, None] + line[:size]):
            return
        yield _Digit(size, step)
        line = line[::size]


@dataclass(frozen=True)
class _Sum:
    """Builds the sum that stands in the place of a table."""

    graph: Graph
    table: Node
    taken: set[str]

    def nodes(self, digits: list[_Digit], start: int) -> list[Node]:
        """The nodes, the last of them the table."""
        base = self.table.name.lstrip("@").rpartition(".")[2]
        grid, made, total = tuple(digit.size for digit in digits), [], None
        for axis, digit in enumerate(digits):
            if digit.step == 0:
                continue
            made += self._counted(f"{base}_{axis}", axis, digit, len(grid))
            if total is not None:
                made.append(self._node(f"{base}_sum", "ops.add", (total, made[-1].name), {}, _joined(made, total)))
            total = made[-1].name
        shape = made[-1].tensor.shape
        if start:
            made.append(self._node(f"{base}_start", "ops.add", (made[-1].name,), {"x2": start}, shape))
        if shape != grid:
            made.append(self._node(f"{base}_grid", "ops.broadcast_to", (made[-1].name,), {"shape": grid}, grid))
        whole = self.table.tensor.shape
        if grid != whole:
            made.append(self._node(base, "ops.reshape", (made[-1].name,), {"newshape": whole}, whole))
        return made

    def _counted(self, title: str, axis: int, digit: _Digit, rank: int) -> list[Node]:
        """Multiples of a step along one axis of the grid."""
        attrs = {"start": 0, "stop": digit.size, "dtype": self.table.tensor.dtype}
        made = [self._node(title, "ops.arange", (), attrs, (digit.size,))]
        if digit.step != 1:
            steps = {"x2": digit.step}
            made.append(self._node(f"{title}_steps", "ops.multiply", (made[-1].name,), steps, (digit.size,)))
        if rank > 1:
            axes = tuple(a for a in range(rank) if a != axis)
            shape = tuple(digit.size if a == axis else 1 for a in range(rank))
            made.append(self._node(f"{title}_axes", "ops.expand_dims", (made[-1].name,), {"axis": axes}, shape))
        return made

    def _node(self, title: str, op: str, operands: tuple[str, ...], attrs: Mapping[str, object], shape: tuple) -> Node:
        name = self.graph.fresh(title, self.taken)
        self.taken.add(name)
        type_ = Tensor(self.table.tensor.dtype, shape)
        return Node(name, op, operands, attrs, type_, self.table.loc, self.table.origin | {"compute_tables"})


def _joined(made: list[Node], total: str) -> tuple:
    """The shape of the sum of what was made last and the total so far."""
    before = next(node for node in made if node.name == total).tensor.shape
    return tuple(a if b == 1 else b for a, b in zip(before, made[-1].tensor.shape, strict=True))
