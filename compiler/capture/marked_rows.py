"""The last of the rows that a mask marks, without a size that depends on data."""

from functools import partial

import torch
from torch.fx import Graph, Node

from hf2khc.capture.fx_graphs import added

_ATEN = torch.ops.aten


def last_marked_rows(graph: Graph) -> None:
    """Look up the last marked place of each example where all marked rows were taken for it, in place.

    A classifier reads the state of the last end token so: `x[mask, :].view(batch, -1, width)[:, -1, :]`. How many rows
    `x[mask]` has depends on data, which one is read does not. Both are the same wherever the view is defined: with as
    many marked places in every example, at least one.

    Args:
        graph: of an export, whose nodes carry what they compute in `meta["val"]`.
    """
    for node in list(graph.nodes):
        found = _last_marked(node)
        if found is not None:
            with graph.inserting_before(node):
                node.replace_all_uses_with(_looked_up(graph, node, *found))
    graph.eliminate_dead_code()


def _last_marked(node: Node) -> tuple[Node, Node] | None:
    """The rows (batch, length, width) and the mask (batch, length) whose last marked row of each example this is."""
    if node.target is not _ATEN.select.int or node.args[1:] != (1, -1):
        return None
    view = node.args[0]
    while isinstance(view, Node) and _is_whole_slice(view):
        view = view.args[0]
    if not isinstance(view, Node) or view.target not in (_ATEN.view.default, _ATEN.reshape.default):
        return None
    index = view.args[0]
    if not isinstance(index, Node) or index.target is not _ATEN.index.Tensor:
        return None
    rows, indices = index.args[:2]
    mask = indices[0] if isinstance(indices, list | tuple) and len(indices) == 1 else None
    if not isinstance(rows, Node) or not isinstance(mask, Node):
        return None
    x, marks, made = rows.meta["val"], mask.meta["val"], view.meta["val"]
    fits = marks.dtype is torch.bool and marks.dim() == 2 and x.dim() == made.dim() == 3
    same = fits and made.shape[0] == x.shape[0] and made.shape[2] == x.shape[2] and x.shape[:2] == marks.shape
    return (rows, mask) if same else None


def _is_whole_slice(node: Node) -> bool:
    end = torch.iinfo(torch.int64).max
    return node.target is _ATEN.slice.Tensor and node.args[2:] in ((), (0,), (0, end))


def _looked_up(graph: Graph, node: Node, rows: Node, mask: Node) -> Node:
    """The operations that look up the last marked row of each example."""

    add = partial(added, graph, node)
    # Running counts are largest from the last marked place on; the first of the largest is that place.
    counts = add(_ATEN.cumsum.default, mask, 1)
    last = add(_ATEN.argmax.default, counts, 1, True)
    places = add(_ATEN.unsqueeze.default, last, -1)
    width = rows.meta["val"].shape[2]
    assert isinstance(width, int)
    found = add(_ATEN.gather.default, rows, 1, add(_ATEN.expand.default, places, [-1, -1, width]))
    return add(_ATEN.squeeze.dim, found, 1)
