"""Pieces that a value is cut into."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

from hf2khc.ir.expr import same
from hf2khc.ir.graph import Graph, Node
from hf2khc.ir.signatures import WHOLE, axis_entries
from hf2khc.ir.types import Tensor, tensors

# What a piece covers of an axis: one entry, or a slice.
Entry = int | tuple


def pieces(graph: Graph, node: Node) -> tuple[int, list[tuple[Node, Entry]]] | None:
    """The axis along which everything that reads a value takes a piece of it, and the pieces with what they cover."""
    users = graph.users(node.name)
    if node.name in graph.outputs or not users:
        return None
    if users[0].op == "ops.split":
        return _items(graph, users[0]) if len(users) == 1 else None
    found = []
    for user in users:
        if user.op != "ops.get_item":
            return None
        key = axis_entries(user.attrs["key"], node.tensor.rank)
        taken = [(axis, entry) for axis, entry in enumerate(key) if entry != WHOLE]
        if "newaxis" in key or len(taken) != 1:
            return None
        ((axis, entry),) = taken
        bounds = entry[1:] if isinstance(entry, tuple) else [entry]
        if not all(bound is None or isinstance(bound, int) for bound in bounds):
            return None
        found.append((axis, user, entry))
    places = {place for place, _, _ in found}
    return (places.pop(), [(user, entry) for _, user, entry in found]) if len(places) == 1 else None


def _items(graph: Graph, split: Node) -> tuple[int, list[tuple[Node, Entry]]] | None:
    items = graph.users(split.name)
    parts = tensors(split.type)
    axis = int(str(split.attrs.get("axis", 0))) % parts[0].rank
    sizes = numbers([part.shape[axis] for part in parts])
    if split.name in graph.outputs or any(item.op != "item" for item in items) or not sizes:
        return None
    offsets = [0, *itertools.accumulate(sizes)]
    slices = itertools.starmap(slice_entry, itertools.pairwise(offsets))
    return axis, [(item, entry) for i, entry in enumerate(slices) for item in items if item.attrs["index"] == i]


def cut_before_reshape(graph: Graph) -> Graph:
    """Entries of an arranged value, each given its shape, for entries of a reshaped whole whose first axis stays."""
    new: list[Node] = []
    for reshape in graph.of("ops.reshape"):
        source = graph[reshape.used[0]]
        place, parts = pieces(graph, reshape) or (None, [])
        entries = place == 0 and all(isinstance(entry, int) for _, entry in parts)
        if not entries or source.op != "ops.transpose" or graph.uses(source.name) != 1:
            continue
        if not same(source.tensor.shape[0], reshape.tensor.shape[0]):
            continue
        for part, _ in parts:
            name = graph.fresh(f"{part.name}_entry", [node.name for node in new])
            type_ = Tensor(source.tensor.dtype, source.tensor.shape[1:])
            new.append(replace(part, name=name, operands=(source.name,), type=type_))
            attrs: dict[str, object] = {"newshape": part.tensor.shape}
            new.append(replace(part, op="ops.reshape", operands=(name,), attrs=attrs))
    return graph.rewired(new) if new else graph


def slice_entry(start: int, stop: int) -> tuple:
    """What a piece from `start` to `stop` covers."""
    return ("slice", start, stop, None)


def are_apart(entries: Sequence[Entry], size: int) -> bool:
    """Whether pieces of an axis of some size are each more than nothing, and none is in another."""
    ranges = sorted(range_of(entry, size) for entry in entries)
    apart = all(stop <= start for (_, stop), (start, _) in itertools.pairwise(ranges))
    return apart and all(start < stop for start, stop in ranges)


def range_of(entry: Entry, size: int) -> tuple[int, int]:
    """Where what a piece covers of an axis of some size begins and ends; nothing where it leaves out places."""
    if isinstance(entry, int):
        return entry % size, entry % size + 1
    start, stop, step = slice(*entry[1:]).indices(size)
    return (start, stop) if step == 1 else (0, 0)


def numbers(sizes: Sequence[object]) -> tuple[int, ...]:
    """Sizes that are numbers; none where one of them is no number."""
    found = tuple(size for size in sizes if isinstance(size, int))
    return found if len(found) == len(sizes) else ()
