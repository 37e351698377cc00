"""Lower the resizing of images and sequences."""

import functools
from collections.abc import Mapping
from typing import Any

from hf2khc.ir.expr import same, simplify
from hf2khc.ir.graph import Node, Program
from hf2khc.passes.core.lowering import Builder, Lowering, channels_first, channels_last, flag, lower

# torch's cubic kernel; Keras's has -0.5.
_CUBIC = -0.75


def lower_resize(program: Program) -> Program:
    """Turn upsampling into `ops.image.resize` where Keras computes the same, else into weighted neighbours per axis.

    Before:

        graph Resize(%x: f32[batch, 3, 4, 4]) {
          %y: f32[batch, 3, 8, 6] = aten.upsample_bilinear2d(%x, output_size=(8, 6), align_corners=false)
          return %y
        }

        entry Resize

    After:

        graph Resize(%x: f32[batch, 3, 4, 4]) {
          %y_last: f32[batch, 4, 4, 3] = ops.transpose(%x, axes=(0, 2, 3, 1))
          %y_resize: f32[batch, 8, 6, 3] = ops.image.resize(%y_last, size=(8, 6), data_format="channels_last")
          %y: f32[batch, 3, 8, 6] = ops.transpose(%y_resize, axes=(0, 3, 1, 2))
          return %y
        }

        entry Resize
    """
    return lower(program, "lower_resize", _LOWERINGS)


def _linear(rank: int, builder: Builder, node: Node) -> list[Node] | None:
    if rank == 2 and not flag(node, "align_corners") and all(_is_plain(builder, node, axis) for axis in (0, 1)):
        return _resized(builder, node)
    return _axis_by_axis(builder, node, rank, functools.partial(_linear_taps, builder))


def _antialiased(builder: Builder, node: Node) -> list[Node] | None:
    plain = not flag(node, "align_corners") and all(_is_plain(builder, node, axis) for axis in (0, 1))
    return _resized(builder, node, antialias=True) if plain else None


def _cubic(builder: Builder, node: Node) -> list[Node] | None:
    return _axis_by_axis(builder, node, 2, functools.partial(_cubic_taps, builder))


def _nearest(rank: int, offset: float, builder: Builder, node: Node) -> list[Node] | None:
    """Nearest neighbours; at a whole factor they are repetitions."""
    if all(_factor(builder, node, axis) for axis in range(rank)):
        x = node.used[0]
        for axis in range(rank - 1):
            x = builder.add("ops.repeat", x, repeats=_factor(builder, node, axis), axis=axis + 2)
        return builder.finish("ops.repeat", x, repeats=_factor(builder, node, rank - 1), axis=rank + 1)
    return _axis_by_axis(builder, node, rank, functools.partial(_nearest_taps, builder, offset))


def _resized(builder: Builder, node: Node, **attrs: Any) -> list[Node]:
    last = channels_last(builder, node.used[0], 2)
    size = node.tensor.shape[2:]
    return channels_first(
        builder, builder.add("ops.image.resize", last, size=size, data_format="channels_last", **attrs), 2
    )


def _factor(builder: Builder, node: Node, axis: int) -> int | None:
    """The whole number of times that an axis grows, on the sizes alone."""
    held, made = builder.tensor(node.used[0]).shape[axis + 2], node.tensor.shape[axis + 2]
    if not _is_plain(builder, node, axis):
        return None
    if isinstance(held, int) and isinstance(made, int):
        return made // held if made % held == 0 else None
    given = _scale_factor(node, axis)
    return int(given) if given is not None and given == int(given) else None


def _is_plain(builder: Builder, node: Node, axis: int) -> bool:
    """Whether the ratio of the sizes is the scale that torch counts with."""
    given = _scale_factor(node, axis)
    held, made = builder.tensor(node.used[0]).shape[axis + 2], node.tensor.shape[axis + 2]
    if given is None:
        return True
    return same(made, simplify(f"({held}) * {int(given) if given == int(given) else given}"))


def has_scale(node: Node) -> bool:
    """Whether a resize counts with a scale other than 1 that it is given."""
    return any(_scale_factor(node, axis) not in (None, 1) for axis in range(node.tensor.rank - 2))


def _scale_factor(node: Node, axis: int) -> float | None:
    factors: Any = node.attrs.get("scale_factors")
    if factors is not None:
        return factors[axis]
    spatial = node.tensor.rank - 2
    names = {1: ("scales",), 2: ("scales_h", "scales_w"), 3: ("scales_d", "scales_h", "scales_w")}[spatial]
    return node.attrs.get(names[axis])  # type: ignore[return-value]


def _axis_by_axis(builder: Builder, node: Node, rank: int, taps) -> list[Node]:
    """Each axis by itself: neighbours at `taps`, pairs of indices and weights, are added up."""
    x = node.used[0]
    for axis in range(rank):
        at = axis + 2
        held, made = builder.tensor(x).shape[at], node.tensor.shape[at]
        pairs = taps(held, made, _step(node, axis, held, made), flag(node, "align_corners"))
        total: str | None = None
        for index, weight in pairs:
            part = builder.add("ops.take", x, index, axis=at)
            if weight is not None:
                shape = (made, *(1,) * (node.tensor.rank - at - 1))
                weight = (
                    builder.add("ops.reshape", weight, newshape=shape, title="weight") if len(shape) > 1 else weight
                )
                part = builder.add("ops.multiply", part, weight, title="weighted")
            total = part if total is None else builder.add("ops.add", total, part, title="sum")
        assert total is not None, "at least one neighbour"
        x = total
    return _under_its_name(builder, x)


def _under_its_name(builder: Builder, made: str) -> list[Node]:
    """What was made last, as what takes the root's place."""
    last = builder.nodes.pop(made)
    return builder.finish(last.op, *last.operands, **last.attrs)


def _step(node: Node, axis: int, held, made):
    """How far apart in the source two neighbours of the result lie."""
    if flag(node, "align_corners"):
        if made == 1:
            return 0.0
        return _ratio(simplify(f"({held}) - 1"), simplify(f"({made}) - 1"))
    given = _scale_factor(node, axis)
    return 1.0 / given if given else _ratio(held, made)


def _ratio(a, b):
    return simplify(f"({a}) / ({b})")


def _sources(builder: Builder, made, step, aligned: bool) -> str:
    """Where in the source each entry of the result lies, not cut to its borders."""
    position = builder.add("ops.arange", start=0, stop=made, dtype="float32", title="position")
    if aligned:
        return builder.add("ops.multiply", position, x2=step, title="source")
    middle = builder.add("ops.multiply", builder.add("ops.add", position, x2=0.5), x2=step, title="middle")
    return builder.add("ops.subtract", middle, x2=0.5, title="source")


def _nearest_taps(builder: Builder, offset: float, held, made, step, aligned: bool) -> list[tuple[str, str | None]]:
    position = builder.add("ops.arange", start=0, stop=made, dtype="float32", title="position")
    if offset:
        position = builder.add("ops.add", position, x2=offset, title="middle")
    source = builder.add("ops.multiply", position, x2=step, title="source")
    index = builder.add("ops.cast", builder.add("ops.floor", source), dtype="int64", title="index")
    return [(builder.add("ops.minimum", index, x2=simplify(f"({held}) - 1"), title="index"), None)]


def _linear_taps(builder: Builder, held, made, step, aligned: bool) -> list[tuple[str, str | None]]:
    source = builder.add("ops.maximum", _sources(builder, made, step, aligned), x2=0.0, title="source")
    floor = builder.add("ops.floor", source)
    fraction = builder.add("ops.subtract", source, floor, title="fraction")
    low = builder.add("ops.cast", floor, dtype="int64", title="low")
    last = simplify(f"({held}) - 1")
    low = builder.add("ops.minimum", low, x2=last, title="low")
    high = builder.add("ops.minimum", builder.add("ops.add", low, x2=1), x2=last, title="high")
    rest = builder.add("ops.subtract", None, fraction, x1=1.0, title="rest")
    return [(low, rest), (high, fraction)]


def _cubic_taps(builder: Builder, held, made, step, aligned: bool) -> list[tuple[str, str | None]]:
    source = _sources(builder, made, step, aligned)
    floor = builder.add("ops.floor", source)
    fraction = builder.add("ops.subtract", source, floor, title="fraction")
    whole = builder.add("ops.cast", floor, dtype="int64", title="whole")
    pairs: list[tuple[str, str | None]] = []
    for offset, near in ((-1, False), (0, True), (1, True), (2, False)):
        moved = builder.add("ops.add", whole, x2=offset, title="neighbour") if offset else whole
        index = builder.add("ops.clip", moved, x_min=0, x_max=simplify(f"({held}) - 1"), title="index")
        if offset < 1:
            distance = builder.add("ops.add", fraction, x2=float(-offset), title="distance") if offset else fraction
        else:
            distance = builder.add("ops.subtract", None, fraction, x1=float(offset), title="distance")
        pairs.append((index, _polynomial(builder, distance, _NEAR if near else _FAR)))
    return pairs


# Coefficients of the cubic kernel, highest power first, up to a distance of one and up to two.
_NEAR = (_CUBIC + 2, -(_CUBIC + 3), 0.0, 1.0)
_FAR = (_CUBIC, -5 * _CUBIC, 8 * _CUBIC, -4 * _CUBIC)


def _polynomial(builder: Builder, x: str, coefficients: tuple) -> str:
    value = builder.add("ops.multiply", x, x2=coefficients[0], title="kernel")
    for coefficient in coefficients[1:-1]:
        if coefficient:
            value = builder.add("ops.add", value, x2=coefficient, title="kernel")
        value = builder.add("ops.multiply", value, x, title="kernel")
    return builder.add("ops.add", value, x2=coefficients[-1], title="kernel")


_LOWERINGS: Mapping[str, Lowering] = {
    "aten.upsample_linear1d": functools.partial(_linear, 1),
    "aten.upsample_bilinear2d": functools.partial(_linear, 2),
    "aten.upsample_trilinear3d": functools.partial(_linear, 3),
    "aten._upsample_bilinear2d_aa": _antialiased,
    "aten.upsample_bicubic2d": _cubic,
    **{f"aten.upsample_nearest{rank}d": functools.partial(_nearest, rank, 0.0) for rank in (1, 2, 3)},
    **{f"aten._upsample_nearest_exact{rank}d": functools.partial(_nearest, rank, 0.5) for rank in (1, 2, 3)},
}
