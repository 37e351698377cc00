"""Lower complex numbers to pairs of real ones, which every backend and dtype policy has."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hf2khc.diagnostics import ConversionError, Diagnostic
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.text import format_node
from hf2khc.ir.types import Tensor, Type
from hf2khc.passes.core.lower_fourier import FOURIER
from hf2khc.passes.core.lowering import Builder
from hf2khc.rewrite.apply import splice

_PARTS = {"complex64": "float32", "complex128": "float64"}


def lower_complex(program: Program) -> Program:
    """Give every complex value a last axis of two, its real and its imaginary part.

    Before:

        graph Rotate(%x: f32[batch, 4, 2], %angle: f32[4]) {
          %ones: f32[4] = aten.ones_like(%angle)
          %turn: c64[4] = aten.polar(%ones, %angle)
          %pairs: c64[batch, 4] = aten.view_as_complex(%x)
          %row: c64[1, 4] = aten.unsqueeze(%turn, dim=0)
          %turned: c64[batch, 4] = aten.mul(%pairs, %row)
          %y: f32[batch, 4, 2] = aten.view_as_real(%turned)
          return %y
        }

        entry Rotate

    After:

        graph Rotate(%x: f32[batch, 4, 2], %angle: f32[4]) {
          %turn_real: f32[4] = ops.cos(%angle)
          %turn_imaginary: f32[4] = ops.sin(%angle)
          %turn: f32[4, 2] = ops.stack(%turn_real, %turn_imaginary, axis=-1)
          %row: f32[1, 4, 2] = aten.unsqueeze(%turn, dim=0)
          %turned_real: f32[batch, 4] = ops.get_item(%x, key=("ellipsis", 0))
          %turned_imaginary: f32[batch, 4] = ops.get_item(%x, key=("ellipsis", 1))
          %turned_real_1: f32[1, 4] = ops.get_item(%row, key=("ellipsis", 0))
          %turned_imaginary_1: f32[1, 4] = ops.get_item(%row, key=("ellipsis", 1))
          %turned_product: f32[batch, 4] = ops.multiply(%turned_real, %turned_real_1)
          %turned_product_1: f32[batch, 4] = ops.multiply(%turned_imaginary, %turned_imaginary_1)
          %turned_real_2: f32[batch, 4] = ops.subtract(%turned_product, %turned_product_1)
          %turned_product_2: f32[batch, 4] = ops.multiply(%turned_real, %turned_imaginary_1)
          %turned_product_3: f32[batch, 4] = ops.multiply(%turned_imaginary, %turned_real_1)
          %turned_imaginary_2: f32[batch, 4] = ops.add(%turned_product_2, %turned_product_3)
          %turned: f32[batch, 4, 2] = ops.stack(%turned_real_2, %turned_imaginary_2, axis=-1)
          return %turned
        }

        entry Rotate
    """
    if not any(_is_complex(node) for graph in program.graphs.values() for node in graph):
        return program
    constants = {name: _pairs(value) for name, value in program.constants.items()}
    return replace(program.map(_lowered), constants=constants)


def _is_complex(node: Node) -> bool:
    return any(t.dtype in _PARTS for t in (node.type if isinstance(node.type, tuple) else (node.type,)))


def _pairs(value: np.ndarray) -> np.ndarray:
    return np.stack([value.real, value.imag], axis=-1) if value.dtype.kind == "c" else value


def _real(type_: Type) -> Type:
    if isinstance(type_, tuple):
        return tuple(_real(t) for t in type_)  # type: ignore[misc]
    return Tensor(_PARTS[type_.dtype], (*type_.shape, 2)) if type_.dtype in _PARTS else type_


def _lowered(graph: Graph) -> Graph:
    were = {node.name: node for node in graph if _is_complex(node)}
    typed = graph.replaced([replace(node, type=_real(node.type)) for node in graph])
    new: dict[str, list[Node]] = {}
    redirect: dict[str, str] = {}
    taken: set[str] = set()
    for node in typed:
        involved = node.name in were or any(o in were for o in node.used)
        if node.op in _IDENTITIES and involved or node.op == "aten.view_as_complex":
            redirect[node.name] = node.used[0]
        elif involved and node.level == "aten":
            new[node.name] = _node(Builder(typed, node, "lower_complex", taken=taken), node, were)
    return splice(typed, new, redirect)


def _node(builder: Builder, node: Node, were: Mapping[str, Node]) -> list[Node]:
    lowering = _LOWERINGS.get(node.op)
    made = lowering(builder, node, were) if lowering else None
    if made is None:
        place = f"{node.loc.file}:{node.loc.line}" if node.loc else ""
        message = f"{node.op} of complex numbers has no lowering"
        raise ConversionError(Diagnostic("unsupported-op", message, place, format_node(were.get(node.name, node))))
    return made


def _part(builder: Builder, x: str, index: int) -> str:
    return builder.add("ops.get_item", x, key=("ellipsis", index), title=("real", "imaginary")[index])


def _polar(builder: Builder, node: Node, were: Mapping[str, Node]) -> list[Node]:
    length, angle = node.used
    parts = [builder.add("ops.cos", angle, title="real"), builder.add("ops.sin", angle, title="imaginary")]
    if builder.graph[length].op not in ("aten.ones_like", "aten.ones"):
        parts = [builder.add("ops.multiply", length, part) for part in parts]
    return builder.finish("ops.stack", *parts, axis=-1)


def _joined(builder: Builder, node: Node, were: Mapping[str, Node]) -> list[Node]:
    return builder.finish("ops.stack", *node.used, axis=-1)


def _product(builder: Builder, node: Node, were: Mapping[str, Node]) -> list[Node] | None:
    if len(node.operands) == 1:
        return builder.finish("ops.multiply", node.used[0], x2=node.attrs["other"]) if "other" in node.attrs else None
    x, y = node.used
    if x not in were or y not in were:
        x, y = (o if o in were else builder.add("ops.expand_dims", o, axis=-1, title="factor") for o in (x, y))
        return builder.finish("ops.multiply", x, y)
    (a, b), (c, d) = ((_part(builder, o, 0), _part(builder, o, 1)) for o in (x, y))

    def times(left: str, right: str) -> str:
        return builder.add("ops.multiply", left, right, title="product")

    real = builder.add("ops.subtract", times(a, c), times(b, d), title="real")
    imaginary = builder.add("ops.add", times(a, d), times(b, c), title="imaginary")
    return builder.finish("ops.stack", real, imaginary, axis=-1)


def _conjugate(builder: Builder, node: Node, were: Mapping[str, Node]) -> list[Node]:
    x = node.used[0]
    negative = builder.add("ops.negative", _part(builder, x, 1), title="opposite")
    return builder.finish("ops.stack", _part(builder, x, 0), negative, axis=-1)


def _magnitude(builder: Builder, node: Node, were: Mapping[str, Node]) -> list[Node]:
    squares = builder.add("ops.square", node.used[0], title="squares")
    return builder.finish("ops.sqrt", builder.add("ops.sum", squares, axis=-1))


def _chosen(index: int) -> Callable:
    return lambda builder, node, were: builder.finish("ops.get_item", node.used[0], key=("ellipsis", index))


def _reshaped(builder: Builder, node: Node, were: Mapping[str, Node]) -> list[Node]:
    return builder.finish("ops.reshape", node.used[0], newshape=node.tensor.shape)


def _expanded(builder: Builder, node: Node, were: Mapping[str, Node]) -> list[Node]:
    return builder.finish("ops.broadcast_to", node.used[0], shape=node.tensor.shape)


def _same(builder: Builder, node: Node, were: Mapping[str, Node]) -> list[Node] | None:
    """What moves whole numbers about does so with pairs, its axes counted from the front."""
    if any(operand not in were for operand in node.used[:1]):
        return None
    first = node.used[0]
    rank = len(were[first].tensor.shape) + (node.op in ("aten.unsqueeze", "aten.stack"))
    attrs: dict[str, Any] = dict(node.attrs)
    for name in ("dim", "dim0", "dim1"):
        if name in attrs:
            attrs[name] = attrs[name] % rank
    if "dims" in attrs:
        attrs["dims"] = (*(axis % rank for axis in attrs["dims"]), rank)
    kept = replace(node, attrs=attrs, origin=builder.origin)
    return [*builder.nodes.values(), kept]


_IDENTITIES = ("aten.view_as_real", "aten.clone", "aten.contiguous", "aten.alias", "aten.detach", "aten.resolve_conj")
_LOWERINGS: Mapping[str, Callable] = {
    **FOURIER,
    "aten.polar": _polar,
    "aten.complex": _joined,
    "aten.mul": _product,
    "aten.conj": _conjugate,
    "aten._conj": _conjugate,
    "aten.abs": _magnitude,
    "aten.real": _chosen(0),
    "aten.imag": _chosen(1),
    "aten.expand": _expanded,
    **dict.fromkeys(("aten.view", "aten.reshape", "aten._unsafe_view", "aten.flatten", "aten.squeeze"), _reshaped),
    **dict.fromkeys(("aten.add", "aten.sub", "aten.unsqueeze", "aten.transpose", "aten.permute", "aten.slice",
                     "aten.select", "aten.index", "aten.index_select", "aten.cat", "aten.stack"), _same),
}  # fmt: skip
