"""Operations that do the same at every position with it and those around it: begun later, they give what they gave."""

from hf2khc.ir.axes import product, slides
from hf2khc.ir.expr import names_of, same
from hf2khc.ir.graph import Node
from hf2khc.ir.signatures import axis_entries
from hf2khc.ir.types import Tensor

_CONVOLUTIONS = ("layers.Conv1D", "layers.Conv2D", "layers.DepthwiseConv1D", "layers.DepthwiseConv2D", "ops.conv")


def moved_axis(node: Node, source: Tensor, axis: int) -> int | None:
    """The axis of the result on which the positions stand; None where an operation does something else to them.

    What stands at a position of the operand is at that of the result, or with it what is a number of places away. Where
    there is padding behind the positions, or they are divided into blocks from the first one on, a later beginning
    divides them in other blocks: whether that makes a difference, only the proof says.

    Args:
        node: with one operand that has positions, the first.
        source: the type of that.
        axis: its axis of positions.
    """
    if node.op == "ops.get_item":
        return _sliced(node, source, axis)
    if node.op in _CONVOLUTIONS:
        return axis if slides(node, source.rank, axis) else None
    if node.op == "ops.pad":
        return axis if _is_behind(node, source, axis) else None
    return _blocks(node.tensor, source, axis) if node.op == "ops.reshape" else None


def _sliced(node: Node, source: Tensor, axis: int) -> int | None:
    """A slice of positions from a certain one on; of other axes there may be anything."""
    place = at = 0
    for entry in axis_entries(node.attrs["key"], source.rank):
        if at == axis and entry != "newaxis":
            symbols = names_of(source.shape[axis])
            moves = isinstance(entry, tuple) and not names_of(entry[1]) & symbols and entry[3] in (None, 1)
            return place if moves and not _is_from_behind(entry[1]) and _keeps_pace(entry[2], symbols) else None
        place += entry == "newaxis" or isinstance(entry, tuple)
        at += entry != "newaxis"
    return None


def _is_from_behind(start) -> bool:
    return isinstance(start, int) and start < 0


def _keeps_pace(stop, symbols: frozenset[str]) -> bool:
    """Whether a slice ends later where there are more positions."""
    return stop is None or (isinstance(stop, int) and stop < 0) or bool(names_of(stop) & symbols)


def _is_behind(node: Node, source: Tensor, axis: int) -> bool:
    widths = node.attrs.get("pad_width")
    return isinstance(widths, tuple) and len(widths) == source.rank and widths[axis][0] == 0


def _blocks(result: Tensor, source: Tensor, axis: int) -> int | None:
    """Positions divided into blocks of a size: the axis of the blocks."""
    symbols = names_of(source.shape[axis])
    found = [i for i, dim in enumerate(result.shape) if names_of(dim) & symbols]
    if len(found) != 1 or found[0] + 1 >= result.rank:
        return None
    (place,) = found
    alike = same(product(result.shape[:place]), product(source.shape[:axis]))
    return place if alike and same(product(result.shape[place : place + 2]), source.shape[axis]) else None
