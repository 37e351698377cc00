"""Split a Dense layer whose result is only cut into pieces."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hf2khc.ir.attention import attention, behind
from hf2khc.ir.expr import same
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.signatures import WHOLE
from hf2khc.ir.types import Tensor, Type
from hf2khc.passes.hub.pieces import (
    Entry,
    are_apart,
    cut_before_reshape,
    numbers,
    pieces,
    range_of,
    slice_entry,
)
from hf2khc.passes.hub.recognize_linear import without_flattening

_ARRANGING = ("ops.reshape", "ops.expand_dims", "ops.transpose")


def split_fused_linear(program: Program) -> Program:
    """Turn a fused projection (one kernel for query, key and value) into one Dense layer per piece.

    The pieces of the kernel become weight expressions, so nothing is copied until the weights are transferred. Pieces
    of every head, or of heads that lie behind one another, are layers only where each is another role of an attention:
    the two halves of a head of which one is rotated are one projection.

    Before:

        graph Attention(%x: f32[batch, seq, 8]) {
          param @c_attn.weight: f32[8, 16]
          %qk: f32[batch, seq, 16] = layers.Dense(%x, @c_attn.weight, units=16, use_bias=false)
          %both: (f32[batch, seq, 8], f32[batch, seq, 8]) = ops.split(%qk, indices_or_sections=2, axis=-1)
          %q: f32[batch, seq, 8] = item(%both, index=0)
          %k: f32[batch, seq, 8] = item(%both, index=1)
          return %q, %k
        }

        entry Attention

    After:

        graph Attention(%x: f32[batch, seq, 8]) {
          param @c_attn.weight: f32[8, 16]
          %q_kernel: f32[8, 8] = ops.get_item(@c_attn.weight, key=("ellipsis", ("slice", 0, 8, none)))
          %q: f32[batch, seq, 8] = layers.Dense(%x, %q_kernel, units=8, use_bias=false)
          %k_kernel: f32[8, 8] = ops.get_item(@c_attn.weight, key=("ellipsis", ("slice", 8, 16, none)))
          %k: f32[batch, seq, 8] = layers.Dense(%x, %k_kernel, units=8, use_bias=false)
          return %q, %k
        }

        entry Attention
    """
    # The Dense layers that have just been put into their callers may still be flattened around.
    return program.map(lambda graph: _split_arranged(without_flattening(graph)))


@dataclass(frozen=True)
class _Cut:
    """How the result of a projection is arranged and cut.

    Args:
        lead: the sizes in front of them.
        factors: the sizes that its last axis is taken apart into.
        axes: for every axis of what is cut the axis of the arranged result, leading axes and factors counted together;
            `None` for an axis of 1 that was put in.
        parts: the pieces in the order of what they cover, each with the index or the slice along `axis`.
        axis: of the factors, the one that is cut.
    """

    lead: tuple
    factors: tuple[int, ...]
    axes: tuple[int | None, ...]
    parts: tuple[tuple[Node, Entry], ...]
    axis: int

    @property
    def plain(self) -> bool:
        """Whether the result is cut as it is."""
        return len(self.factors) == 1 and None not in self.axes and self.axes == tuple(sorted(self.axes))  # type: ignore[type-var]


def _split_arranged(graph: Graph) -> Graph:
    """Cut what is arranged and then cut; where that is no projection, it stays as it was."""
    cut = cut_before_reshape(graph)
    split = _split(cut)
    return graph if split is cut else split


def _split(graph: Graph) -> Graph:
    new: list[Node] = []
    for dense in graph.of("layers.Dense"):
        cut = _cut(graph, dense)
        if cut is not None and (cut.plain or _are_roles(graph, [part.name for part, _ in cut.parts])):
            for part, entry in cut.parts:
                new += _piece(graph, dense, cut, part, entry)
    return graph.rewired(new) if new else graph


def _cut(graph: Graph, dense: Node) -> _Cut | None:
    """The pieces of a projection; `None` where something else reads its result, or they overlap."""
    arranged = _arrangement(graph, dense)
    found = pieces(graph, arranged[0]) if arranged else None
    if arranged is None or found is None:
        return None
    (_, lead, factors, axes), (place, parts) = arranged, found
    axis, before = axes[place], len(lead)
    if axis is None or axis < before or not are_apart([entry for _, entry in parts], factors[axis - before]):
        return None
    cut = _Cut(lead, factors, axes, tuple(parts), axis - before)
    return cut if cut.plain else _numbered(cut, axis)


def _arrangement(graph: Graph, dense: Node) -> tuple[Node, tuple, tuple[int, ...], tuple[int | None, ...]] | None:
    """What is cut, with leading sizes, factors and axes of a `_Cut`; `None` where it is arranged in another way."""
    node, lead = dense, dense.tensor.shape[:-1]
    factors: tuple[int, ...] = (int(str(dense.tensor.shape[-1])),)
    axes: list[int | None] = list(range(len(lead) + 1))
    while (user := _only_user(graph, node)) is not None and user.op in _ARRANGING:
        if user.op == "ops.reshape":
            shape = user.tensor.shape
            before = _leading(dense.tensor.shape, shape)
            if node is not dense or before is None:
                return None
            lead, factors, axes = shape[:before], numbers(shape[before:]), list(range(len(shape)))
        elif user.op == "ops.expand_dims":
            place = user.attrs["axis"]
            if not isinstance(place, int):
                return None
            axes.insert(place % user.tensor.rank, None)
        else:
            order = user.attrs.get("axes") or tuple(reversed(range(len(axes))))
            axes = [axes[axis] for axis in order]  # type: ignore[union-attr]
        node = user
    return (node, lead, factors, tuple(axes)) if factors else None


def _leading(whole: tuple, shape: tuple) -> int | None:
    """How many axes of a reshaped result are its leading axes, perhaps merged; the others are its last axis."""
    lead = len(whole) - 1
    if len(shape) > lead and all(map(same, whole[:-1], shape[:lead])):
        return lead
    for before in range(len(shape) - 1, 0, -1):
        factors = numbers(shape[before:])
        if not factors:
            return None
        if math.prod(factors) == whole[-1]:
            return before
    return None


def _numbered(cut: _Cut, axis: int) -> _Cut:
    """Slices of one width as entries of an axis of their own: the width of a head says more than three times it."""
    ranges = [range_of(entry, cut.factors[cut.axis]) for _, entry in cut.parts]
    (width, *others), size = {stop - start for start, stop in ranges}, cut.factors[cut.axis]
    if others or width == 1 or any(start % width for start, _ in ranges) or size % width:
        return cut
    factors = (*cut.factors[: cut.axis], size // width, width, *cut.factors[cut.axis + 1 :])
    axes = tuple(a + 1 if a is not None and a >= axis else a for a in cut.axes)
    parts = tuple((part, start // width) for (part, _), (start, _) in zip(cut.parts, ranges, strict=True))
    return _Cut(cut.lead, factors, axes, parts, cut.axis)


def _only_user(graph: Graph, node: Node) -> Node | None:
    users = graph.users(node.name)
    return users[0] if len(users) == 1 and node.name not in graph.outputs else None


def _are_roles(graph: Graph, parts: Sequence[str]) -> bool:
    """Whether each part is the query, the key, the value, or no operand of the attention, and no two are the same."""
    attended = attention(graph)
    if attended is None:
        return False
    sources = behind(graph, attended[:3])
    roles = [tuple(i for i, names in enumerate(sources) if part in names) for part in parts]
    return any(roles) and all(len(role) <= 1 for role in roles) and len(set(roles)) == len(roles)


def _piece(graph: Graph, dense: Node, cut: _Cut, part: Node, entry: Entry) -> list[Node]:
    """The Dense layer that computes one piece and what arranges its result, the weight expressions first."""
    x, *weights = dense.operands
    factors = list(cut.factors)
    if isinstance(entry, int):
        del factors[cut.axis]
    else:
        start, stop = range_of(entry, cut.factors[cut.axis])
        factors[cut.axis], entry = stop - start, slice_entry(start, stop)
    made: list[Node] = []

    def add(name: str, op: str, operands: tuple, attrs: dict, type_: Type) -> str:
        origin = dense.origin | part.origin | {"split_fused_linear"}
        name = graph.fresh(name, [node.name for node in made])
        made.append(Node(name, op, operands, attrs, type_, part.loc or dense.loc, origin))
        return name

    owned = []
    for weight, role in zip(weights, ("kernel", "bias"), strict=False):
        whole = graph[weight].tensor  # type: ignore[index]
        owned.append(weight)
        for op, attrs, shape in _selected(cut, entry, whole.shape[:-1], tuple(factors)):
            owned[-1] = add(f"{part.name}_{role}", op, (owned[-1],), attrs, Tensor(whole.dtype, shape))
    units = math.prod(factors)
    type_ = Tensor(dense.tensor.dtype, (*dense.tensor.shape[:-1], units))
    result = add(f"{part.name}_dense", dense.op, (x, *owned), {**dense.attrs, "units": units}, type_)
    for op, attrs, shape in _arranged(cut, entry, type_.shape, tuple(factors), part.tensor.shape):
        result = add(f"{part.name}_{op[4:]}", op, (result,), attrs, Tensor(type_.dtype, shape))
    return [*made[:-1], replace(made[-1], name=part.name)]


_Step = tuple[str, dict, tuple]


def _selected(cut: _Cut, entry: Entry, lead: tuple, factors: tuple[int, ...]) -> Iterator[_Step]:
    """How a weight for the whole result becomes the one for a piece: operations, attributes and shapes."""
    if len(cut.factors) == 1:
        yield "ops.get_item", {"key": ("ellipsis", entry)}, (*lead, *factors)
        return
    shape = (*lead, *cut.factors)
    yield "ops.reshape", {"newshape": shape}, shape
    key = (*[WHOLE] * (len(lead) + cut.axis), entry)
    yield "ops.get_item", {"key": key}, (*lead, *factors)
    shape = (*lead, math.prod(factors))
    yield "ops.reshape", {"newshape": shape}, shape


def _arranged(cut: _Cut, entry: Entry, before: tuple, factors: tuple[int, ...], shape: tuple) -> Iterator[_Step]:
    """How the result of a piece's projection, of the shape `before`, is arranged as the whole one was."""
    current = (*cut.lead, *factors)
    if len(current) != len(before) or not all(map(same, current, before)):
        yield "ops.reshape", {"newshape": current}, current
    gone = len(cut.lead) + cut.axis if isinstance(entry, int) else None
    kept = [axis for axis in cut.axes if axis is not None and axis != gone]
    order = tuple(sorted(kept).index(axis) for axis in kept)
    if order != tuple(range(len(order))):
        current = tuple(current[axis] for axis in order)
        yield "ops.transpose", {"axes": order}, current
    if None in cut.axes:
        yield "ops.reshape", {"newshape": shape}, shape
