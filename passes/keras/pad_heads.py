"""Make the heads of queries and values equally wide where an attention has them differ."""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from hf2khc.ir.expr import evaluate, same, simplify
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.types import Tensor


def pad_heads(program: Program, values: Mapping[str, object] = MappingProxyType({})) -> Program:
    """Pad values with zeros up to the width of the queries, and cut the result; or queries and keys, if those are less.

    `jax.nn.dot_product_attention` takes heads of one width alone, while latent attention has values of their own width
    (DeepSeek-AI, 2024). Zeros add nothing to a product. Runs on the program whose sizes are expressed by the config: at
    the config at hand two widths may be equal that are not at another. `values` are what its names stand for there.

    Before:

        graph Attention(%q: f32[batch, seq, 2, 6], %k: f32[batch, seq, 2, 6], %v: f32[batch, seq, 2, 4]) {
          %y: f32[batch, seq, 2, 4] = ops.dot_product_attention(%q, %k, %v, scale=0.5)
          return %y
        }

        entry Attention

    After:

        graph Attention(%q: f32[batch, seq, 2, 6], %k: f32[batch, seq, 2, 6], %v: f32[batch, seq, 2, 4]) {
          %v_padded: f32[batch, seq, 2, 6] = ops.pad(%v, pad_width=((0, 0), (0, 0), (0, 0), (0, 2)))
          %y_padded: f32[batch, seq, 2, 6] = ops.dot_product_attention(%q, %k, %v_padded, scale=0.5)
          %y: f32[batch, seq, 2, 4] = ops.get_item(%y_padded, key=("ellipsis", ("slice", none, 4, none)))
          return %y
        }

        entry Attention
    """
    return program.map(functools.partial(_padded, values))


def _padded(values: Mapping[str, object], graph: Graph) -> Graph:
    new = [made for node in graph.of("ops.dot_product_attention") for made in _equal(graph, node, values)]
    return graph.rewired(new) if new else graph


def _equal(graph: Graph, attention: Node, values: Mapping[str, object]) -> Iterator[Node]:
    """The attention with operands of one width, and what it needs; nothing where they are."""
    query, key, value, *rest = attention.operands
    width, own = (graph[str(name)].tensor.shape[-1] for name in (query, value))
    sizes = [_size(dim, values) for dim in (width, own)]
    if same(width, own) or None in sizes:  # a width that only a run knows is no width of heads
        return
    if sizes[1] <= sizes[0]:  # type: ignore[operator]
        padded = _widened(graph, str(value), own, width)
        yield padded
        shape = (*attention.tensor.shape[:-1], width)
        wide = replace(
            attention, name=graph.fresh(f"{attention.name}_padded"), type=Tensor(attention.tensor.dtype, shape),
            operands=(query, key, padded.name, *rest),
        )  # fmt: skip
        yield wide
        cut = ("ellipsis", ("slice", None, own, None))
        yield replace(attention, op="ops.get_item", operands=(wide.name,), attrs={"key": cut})
    else:
        made = [_widened(graph, str(name), width, own) for name in (query, key)]
        yield from made
        # Unless it is said, the scale is that of the width.
        attrs = {"scale": simplify(f"({width}) ** -0.5"), **attention.attrs}
        yield replace(attention, operands=(*(node.name for node in made), value, *rest), attrs=attrs)


def _size(dim, values: Mapping[str, object]) -> int | None:
    try:
        return int(evaluate(dim, values))  # type: ignore[call-overload]
    except KeyError:
        return None


def _widened(graph: Graph, name: str, own, width) -> Node:
    """A value with zeros behind each head."""
    node = graph[name]
    pad = ((0, 0), (0, 0), (0, 0), (0, simplify(f"({width}) - ({own})")))
    type_ = Tensor(node.tensor.dtype, (*node.tensor.shape[:-1], width))
    origin = node.origin | {"pad_heads"}
    return Node(graph.fresh(f"{name}_padded"), "ops.pad", (name,), {"pad_width": pad}, type_, node.loc, origin)
