"""A reshape keeps an axis where its places stand together in the result."""

import pytest

from hf2khc.ir.axes import axes_of
from hf2khc.ir.graph import Graph, Node
from hf2khc.ir.text import parse_program


def reshape(before: str, after: str) -> tuple[Node, Graph]:
    text = f"""
graph G(%x: f32[{before}]) {{
  %y: f32[{after}] = ops.reshape(%x, newshape=({after}))
  return %y
}}

entry G
"""
    graph = parse_program(text).graphs["G"]
    return graph["y"], graph


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("batch, seq, 4, 2", "batch, seq, 8", {0: 0, 1: 1, 2: 2, 3: 2}),
        ("batch, seq, 4, 2", "4 * batch * seq, 2", {0: 0, 1: 0, 2: 0, 3: 1}),
        # Two rows of four are made of four rows of two; which are those of a head is lost.
        ("batch, seq, 4, 2", "2 * batch * seq, 4", {0: 0, 1: 0}),
        # A quotient may be no whole number where nothing says that the config is valid.
        ("batch, seq, config.g, config.h * config.d // config.g", "config.h * batch * seq, config.d", {0: 0, 1: 0}),
        # Half a row for every token: a row is of two tokens.
        ("batch, seq, 4, 2", "batch * seq // 2, 16", {}),
    ],
)
def test_axes_of_a_reshape(before: str, after: str, expected: dict[int, int]) -> None:
    node, graph = reshape(before, after)
    axes = axes_of(node, [graph["x"].tensor])
    assert axes is not None
    assert axes.maps == (expected,)
