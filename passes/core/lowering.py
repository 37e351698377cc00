"""How a Python lowering is applied: a table from op to a function that builds what takes a node's place."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hf2khc.ir.expr import Expr, same, simplify
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.rewrite.apply import splice
from hf2khc.rewrite.build import Builder

# Builds nodes with `builder.add` and ends with `builder.finish`; `None` leaves the node as it is.
Lowering = Callable[[Builder, Node], list[Node] | None]


def lower(
    program: Program, why: str, table: Mapping[str, Lowering], items: Mapping[str, Lowering] | None = None
) -> Program:
    """Apply a table of lowerings to every graph.

    Args:
        why: name of the pass, added to the origins.
        table: by op of the node that is replaced.
        items: by op of the producer of several results; what is replaced is each `item` of it.
    """
    return program.map(lambda graph: _lowered(graph, why, table, items or {}))


def _lowered(graph: Graph, why: str, table: Mapping[str, Lowering], items: Mapping[str, Lowering]) -> Graph:
    new: dict[str, list[Node]] = {}
    taken: set[str] = set()
    for node in graph:
        replaced: tuple[Node, ...] = (node,)
        lowering = table.get(node.op)
        if node.op == "item":
            producer = graph[node.used[0]]
            replaced, lowering = (node, producer), items.get(producer.op)
        if lowering is not None:
            made = lowering(Builder(graph, node, why, replaced, taken), replaced[-1])
            if made is not None:
                new[node.name] = made
    return splice(graph, new) if new else graph


def axis_of(node: Node, rank: int, name: str = "dim", default: int = 0) -> int:
    """The axis attribute of a torch op, counted from the front."""
    axis = node.attrs.get(name, default)
    assert isinstance(axis, int)
    return axis % max(rank, 1)


def flag(node: Node, name: str, default: object = False):
    """An attribute of a torch op, its default where absent."""
    return node.attrs.get(name, default)


def product(sizes: Iterable) -> int | Expr:
    """The number of entries of a shape."""
    return simplify(" * ".join(f"({size})" for size in sizes) or "1")


def equal_shapes(first: Sequence, second: Sequence) -> bool:
    return len(first) == len(second) and all(map(same, first, second))


def broadcast_shape(shapes: Sequence[tuple]) -> tuple:
    """The shape that values of these shapes broadcast to."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*padded, strict=True))


def each(node: Node, name: str, rank: int, default: int = 1) -> tuple:
    """An attribute that is one number or one per axis, as one per axis."""
    value = node.attrs.get(name, default)
    values = value if isinstance(value, tuple) else (value,)
    return values * rank if len(values) == 1 else values


def channels_last(builder: Builder, x: str, rank: int) -> str:
    return builder.add("ops.transpose", x, axes=(0, *range(2, rank + 2), 1), title="last")


def channels_first(builder: Builder, x: str, rank: int) -> list[Node]:
    return builder.finish("ops.transpose", x, axes=(0, rank + 1, *range(1, rank + 1)))


def padded(builder: Builder, x: str, pairs: tuple, fill: float = 0.0) -> str:
    if not any(any(pair) for pair in pairs):
        return x
    attrs: dict[str, Any] = {"constant_values": fill} if fill else {}
    return builder.add("ops.pad", x, pad_width=((0, 0), *pairs, (0, 0)), title="padded", **attrs)


__all__ = [
    "Builder",
    "Lowering",
    "axis_of",
    "broadcast_shape",
    "channels_first",
    "channels_last",
    "each",
    "equal_shapes",
    "flag",
    "lower",
    "padded",
    "product",
]
