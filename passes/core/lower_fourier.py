"""Fourier transforms, of real and of complex numbers, on pairs of real ones."""

from collections.abc import Callable, Mapping
from typing import Any

from hf2khc.ir.graph import Node
from hf2khc.ir.types import tensors
from hf2khc.passes.core.lowering import Builder

# Axes that torch transforms where none are given, None for all, and what Keras has for one axis and for two.
_KINDS: Mapping[str, tuple[tuple[int, ...] | None, str, str]] = {
    "aten.fft_fft": ((-1,), "ops.fft", "ops.fft2"),
    "aten.fft_fft2": ((-2, -1), "ops.fft", "ops.fft2"),
    "aten.fft_fftn": (None, "ops.fft", "ops.fft2"),
    "aten.fft_ifft2": ((-2, -1), "", "ops.ifft2"),
    "aten.fft_ifftn": (None, "", "ops.ifft2"),
    "aten.fft_rfft": ((-1,), "ops.rfft", ""),
    "aten.fft_irfft": ((-1,), "ops.irfft", ""),
}


def _transformed(builder: Builder, node: Node, were: Mapping[str, Node]) -> list[Node] | None:
    """One or two axes, moved to the back, where Keras transforms them; None for more, or another norm."""
    x = node.used[0]
    rank = (were[x] if x in were else builder.graph[x]).tensor.rank
    length = node.attrs.get("n")
    axes = _axes(node.attrs.get("dim"), _KINDS[node.op][0], rank)
    op = dict(enumerate(_KINDS[node.op][1:], 1)).get(len(axes))
    padded = length is not None and op not in ("ops.rfft", "ops.irfft") or node.attrs.get("s") is not None
    if not op or padded or node.attrs.get("norm") not in (None, "backward"):
        return None
    order = (*(axis for axis in range(rank) if axis not in axes), *axes)
    parts = [_ordered(builder, part, order) for part in _operands(builder, x, op, were)]
    attrs: dict[str, Any] = {} if length is None else {"fft_length": length}
    back = tuple(order.index(axis) for axis in range(rank))
    if op == "ops.irfft":
        if back == tuple(range(rank)):
            return builder.finish(op, *parts, **attrs)
        return builder.finish("ops.transpose", builder.add(op, *parts, **attrs, title="signal"), axes=back)
    both = builder.add(op, *parts, **attrs, title="spectrum")
    types = enumerate(tensors(builder.nodes[both].type))
    parts = [builder.add("item", both, index=i, type=part, title="part") for i, part in types]
    found = [_ordered(builder, part, back) for part in parts]
    return builder.finish("ops.stack", *found, axis=-1)


def _axes(given: Any, default: tuple[int, ...] | None, rank: int) -> list[int]:
    chosen = default if given is None else given if isinstance(given, tuple) else (given,)
    return sorted(axis % rank for axis in (range(rank) if chosen is None else chosen))


def _operands(builder: Builder, x: str, op: str, were: Mapping[str, Node]) -> list[str]:
    """The real and the imaginary part; one operand for what is real and stays so to Keras."""
    if op == "ops.rfft":
        return [x]
    if x in were:
        return [builder.add("ops.get_item", x, key=("ellipsis", index), title="part") for index in range(2)]
    return [x, builder.add("ops.zeros_like", x, title="imaginary")]


def _ordered(builder: Builder, x: str, order: tuple[int, ...]) -> str:
    return x if order == tuple(sorted(order)) else builder.add("ops.transpose", x, axes=order, title="ordered")


FOURIER: Mapping[str, Callable] = dict.fromkeys(_KINDS, _transformed)
