"""Do not pad what is cut off again behind a convolution."""

from dataclasses import replace

from hf2khc.ir.axes import slides
from hf2khc.ir.expr import same
from hf2khc.ir.expr import simplify as simplify_size
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.signatures import only_entry
from hf2khc.ir.types import Tensor

_CONVOLUTIONS = ("layers.Conv1D", "layers.DepthwiseConv1D")
# The axis of positions, channels last.
_AXIS = 1


def trim_padding(program: Program) -> Program:
    """Take from the padding behind a sequence what is cut off the result of a convolution over it.

    torch pads on both sides: a causal convolution, which sees what came before, is one that is padded on both and cut
    behind, and a kernel of even size gives one entry too much.

    Before:

        graph Conv(%x: f32[batch, seq, 8], %kernel: f32[3, 8, 8]) {
          %padded: f32[batch, seq + 4, 8] = ops.pad(%x, pad_width=((0, 0), (2, 2), (0, 0)))
          %y: f32[batch, seq + 4 - 2, 8] = layers.Conv1D(%padded, %kernel, filters=8, kernel_size=(3,), strides=(1,), use_bias=false)
          %z: f32[batch, seq, 8] = ops.get_item(%y, key=(("slice", none, none, none), ("slice", none, seq, none)))
          return %z
        }

        entry Conv

    After:

        graph Conv(%x: f32[batch, seq, 8], %kernel: f32[3, 8, 8]) {
          %padded: f32[batch, seq + 4 - 2, 8] = ops.pad(%x, pad_width=((0, 0), (2, 0), (0, 0)))
          %z: f32[batch, seq, 8] = layers.Conv1D(%padded, %kernel, filters=8, kernel_size=(3,), strides=(1,), use_bias=false)
          return %z
        }

        entry Conv
    """  # noqa: E501
    return program.map(_trimmed)


def _trimmed(graph: Graph) -> Graph:
    new: list[Node] = []
    for node in graph.of("ops.get_item"):
        convolution = graph[node.used[0]]
        if convolution.op in _CONVOLUTIONS and graph.uses(convolution.name) == 1 and slides(convolution, 3, _AXIS):
            pad = _pad(graph, convolution, _cut(node, convolution.tensor))
            if pad is not None:
                operands = (pad.name, *convolution.operands[1:])
                new += [pad, replace(convolution, name=node.name, operands=operands, type=node.type)]
    return graph.rewired(new) if new else graph


def _cut(node: Node, source: Tensor):
    """How many entries a slice leaves out behind all that it takes; None for another index."""
    entry = only_entry(node.attrs["key"], _AXIS, source.rank)
    if not isinstance(entry, tuple):
        return None
    _, start, stop, step = entry
    if start not in (None, 0) or step not in (None, 1) or stop is None:
        return None
    return -stop if isinstance(stop, int) and stop < 0 else simplify_size(f"({source.shape[_AXIS]}) - ({stop})")


def _pad(graph: Graph, convolution: Node, cut) -> Node | None:
    """The padding of a convolution without as many entries behind; None where there are not as many."""
    node = graph[convolution.used[0]]
    widths = node.attrs.get("pad_width")
    plain = node.op == "ops.pad" and node.attrs.get("mode", "constant") == "constant" and len(node.used) == 1
    if cut is None or not plain or graph.uses(node.name) > 1 or not isinstance(widths, tuple):
        return None
    before, behind = widths[_AXIS]
    left = 0 if same(behind, cut) else simplify_size(f"({behind}) - ({cut})")
    if not isinstance(left, int) or not isinstance(behind, int) or left < 0:
        return None
    shape = list(node.tensor.shape)
    shape[_AXIS] = simplify_size(f"{shape[_AXIS]} - {behind - left}")
    kept = (*widths[:_AXIS], (before, left), *widths[_AXIS + 1 :])
    return replace(node, attrs={**node.attrs, "pad_width": kept}, type=Tensor(node.tensor.dtype, tuple(shape)))
