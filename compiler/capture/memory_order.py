"""Views that count in memory (`as_strided`), of tensors that do not lie there in the order of their axes."""

from typing import Any

import torch
from torch.fx import Graph

from hf2khc.capture.fx_graphs import added

_ATEN = torch.ops.aten


def strided_in_order(graph: Graph) -> None:
    """Give `as_strided` its operand with the axes in the order in which they lie in memory, in place.

    The program knows no memory: in it `as_strided` counts along the axes of its operand, the last one first. Longformer
    cuts chunks from keys whose batch lies between their length and their width. A tensor whose entries do not fill the
    memory that it lies in stays, and the comparison in float64 shows what that means.

    Args:
        graph: of an export, whose nodes carry what they compute in `meta["val"]`.
    """
    for node in list(graph.nodes):
        if node.target is _ATEN.as_strided.default:
            given = node.args[0]
            order = _order(given.meta["val"])
            if order != sorted(order):
                with graph.inserting_before(node):
                    node.replace_input_with(given, added(graph, given, _ATEN.permute.default, given, order))


def _order(value: torch.Tensor) -> list[int]:
    """The axes, the outermost in memory first; as they are where there are gaps between entries."""
    axes = list(range(value.dim()))
    sizes, strides = list(map(_number, value.shape)), list(map(_number, value.stride()))
    order = sorted((axis for axis in axes if sizes[axis] > 1), key=lambda axis: -strides[axis])
    step = 1
    for axis in reversed(order):
        if strides[axis] != step:
            return axes
        step *= sizes[axis]
    # An axis of one entry lies anywhere.
    return [axis for axis in axes if sizes[axis] == 1] + order if order != sorted(order) else axes


def _number(size: Any) -> int:
    return size if isinstance(size, int) else int(size.node.hint)
