"""A stored table of numbers that rise evenly along grids is computed."""

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.passes.core.constants import as_value, map_constants, positions
from hf2khc.rewrite.build import Builder

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
    return map_constants(program, _computed)


def _computed(graph: Graph, values: Mapping[str, np.ndarray]) -> Graph:
    new: list[Node] = []
    redirect: dict[str, str] = {}
    taken: set[str] = set()
    for node in graph.of("const"):
        value = values[node.name]
        digits = _digits(value) if value.dtype.kind in "iu" and value.size >= LEAST else None
        if digits is not None:
            table = as_value(graph, node, taken)
            made = _sum(Builder(graph, table, "compute_tables", taken=taken), digits, int(value.flat[0]))
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


def _sum(builder: Builder, digits: list[_Digit], start: int) -> list[Node]:
    """What stands in the place of a table, the root; the last node is the table."""
    table, grid = builder.root.tensor, tuple(digit.size for digit in digits)
    places = (
        positions(builder, str(axis), digit.size, axis, len(grid), table.dtype, digit.step)
        for axis, digit in enumerate(digits)
        if digit.step
    )
    total = functools.reduce(lambda before, place: builder.add("ops.add", before, place, title="sum"), places)
    if start:
        total = builder.add("ops.add", total, x2=start, title="start")
    if builder.tensor(total).shape != grid:
        total = builder.add("ops.broadcast_to", total, shape=grid, title="grid")
    if grid == table.shape:
        return list(builder.nodes.values())
    return builder.finish("ops.reshape", total, newshape=table.shape)
