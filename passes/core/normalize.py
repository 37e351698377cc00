"""Drop what computes nothing."""

from dataclasses import replace

from hf2khc.ir.expr import same
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.types import Tensor, same_type
from hf2khc.passes.core.lower_resize import has_scale
from hf2khc.passes.core.lower_splits import SPLITS

_ALIASES = {"aten.alias", "aten.contiguous", "aten.detach", "aten.detach_", "aten.clone", "aten.lift_fresh",
            "aten.lift_fresh_copy"}  # fmt: skip
# These compute nothing if the type stays the same.
_BY_TYPE = {"aten.to", "aten._to_copy", "aten.type_as", "aten.float", "aten.expand", "aten.expand_as", "aten.view",
            "aten.broadcast_to", "aten.reshape", "aten._unsafe_view", "aten.view_as", "aten.reshape_as", "aten.flatten",
            "aten.squeeze"}  # fmt: skip
# The number that changes nothing, by op.
_NEUTRAL = {"aten.add": 0, "aten.sub": 0, "aten.mul": 1, "aten.div": 1, "aten.pow": 1}


def normalize(program: Program) -> Program:
    """Drop aliases, casts to the same dtype, views of the same shape, additions of zero and products with one.

    Resizing to the same size computes nothing either, in every mode, nor does padding by nothing or a split into one
    part.

    Dropout stays, training needs it; where its rate is zero it goes.

    Before:

        graph Norm(%x: f32[batch, 8]) {
          %wide: f32[batch, 8] = aten.to(%x, dtype="float32")
          %same: f32[batch, 8] = aten.view(%wide, size=(batch, 8))
          %one: f32[batch, 8] = aten.mul(%same, other=1.0)
          %y: f32[batch, 8] = aten.relu(%one)
          return %y
        }

        entry Norm

    After:

        graph Norm(%x: f32[batch, 8]) {
          %y: f32[batch, 8] = aten.relu(%x)
          return %y
        }

        entry Norm
    """
    return program.map(_normalized)


def _normalized(graph: Graph) -> Graph:
    redirect = {node.name: node.used[0] for node in graph if node.used and _is_identity(graph, node)}
    redirect |= {node.name: node.used[1] for node in graph if _replaces_all(graph, node)}
    redirect |= {node.name: graph[node.used[0]].used[0] for node in graph.of("item") if _is_whole(graph, node)}
    joined = _without_empty_parts(graph)
    redirect |= {node.name: node.used[0] for node in joined if len(node.used) == 1}
    return graph.rewired([node for node in joined if len(node.used) > 1], redirect).pruned()


def _without_empty_parts(graph: Graph) -> list[Node]:
    """Concatenations without values of no elements; torch lets empty vectors stand among values of any rank."""
    new = []
    for node in graph.of("aten.cat", "aten.concat", "aten.concatenate"):
        kept = tuple(o for o in node.used if 0 not in graph[o].tensor.shape)
        if 0 < len(kept) < len(node.used):
            new.append(replace(node, operands=kept))
    return new


def _is_identity(graph: Graph, node: Node) -> bool:
    if node.op in _ALIASES:
        return True
    if node.op == "aten.dropout":
        return node.attrs.get("p") == 0
    source = graph[node.used[0]].type
    if not isinstance(node.type, Tensor) or not isinstance(source, Tensor) or not same_type(node.type, source):
        return False
    if node.op == "aten.slice":
        return node.attrs.get("step", 1) == 1
    return node.op in _BY_TYPE or _is_neutral(node) or _keeps_size(node) or _pads_nothing(node)


def _is_whole(graph: Graph, item: Node) -> bool:
    """Whether a part of a split is all of it."""
    source = graph[item.used[0]]
    return source.op in SPLITS and isinstance(source.type, tuple) and len(source.type) == 1


def _keeps_size(node: Node) -> bool:
    """Whether a resize whose type is that of its operand changes nothing."""
    return node.op.removeprefix("aten.").lstrip("_").startswith("upsample") and not has_scale(node)


def _pads_nothing(node: Node) -> bool:
    widths = node.attrs.get("pad")
    return node.op in ("aten.pad", "aten.constant_pad_nd") and isinstance(widths, tuple) and not any(widths)


def _replaces_all(graph: Graph, node: Node) -> bool:
    """Whether what is written takes the place of the whole value."""
    if node.op not in ("aten.slice_scatter", "aten.copy") or len(node.used) != 2:
        return False
    source = graph[node.used[1]].type
    return node.attrs.get("step", 1) == 1 and isinstance(source, Tensor) and same_type(node.type, source)


def _is_neutral(node: Node) -> bool:
    if node.op not in _NEUTRAL or len(node.operands) != 1 or node.attrs.keys() - {"other", "exponent"}:
        return False
    number = node.attrs.get("other", node.attrs.get("exponent"))
    return isinstance(number, int | float) and same(float(number), float(_NEUTRAL[node.op]))
