"""Lower the sampling of images at points, which deformable attention does."""

import itertools

from hf2khc.ir.expr import simplify
from hf2khc.ir.graph import Node, Program
from hf2khc.passes.core.lowering import Builder, flag, lower, product

_BILINEAR, _NEAREST = 0, 1
_ZEROS, _BORDER = 0, 1


def lower_sampling(program: Program) -> Program:
    """Turn `aten.grid_sampler` into gathers: of the nearest pixel, or of four weighted ones.

    Before:

        graph Sample(%x: f32[batch, 3, 4, 4], %points: f32[batch, 2, 2, 2]) {
          %y: f32[batch, 3, 2, 2] = aten.grid_sampler(%x, %points, interpolation_mode=1, padding_mode=1)
          return %y
        }

        entry Sample

    After:

        graph Sample(%x: f32[batch, 3, 4, 4], %points: f32[batch, 2, 2, 2]) {
          %y_flat: f32[batch, 3, 16] = ops.reshape(%x, newshape=(batch, 3, 16))
          %y_pixels: f32[batch, 16, 3] = ops.transpose(%y_flat, axes=(0, 2, 1))
          %y_points: f32[batch, 4, 2] = ops.reshape(%points, newshape=(batch, 4, 2))
          %y_coordinate: f32[batch, 4] = ops.get_item(%y_points, key=("ellipsis", 0))
          %y_coordinate_1: f32[batch, 4] = ops.add(%y_coordinate, x2=1.0)
          %y_pixel: f32[batch, 4] = ops.multiply(%y_coordinate_1, x2=2.0)
          %y_pixel_1: f32[batch, 4] = ops.subtract(%y_pixel, x2=0.5)
          %y_pixel_2: f32[batch, 4] = ops.clip(%y_pixel_1, x_min=0.0, x_max=3.0)
          %y_coordinate_2: f32[batch, 4] = ops.get_item(%y_points, key=("ellipsis", 1))
          %y_coordinate_3: f32[batch, 4] = ops.add(%y_coordinate_2, x2=1.0)
          %y_pixel_3: f32[batch, 4] = ops.multiply(%y_coordinate_3, x2=2.0)
          %y_pixel_4: f32[batch, 4] = ops.subtract(%y_pixel_3, x2=0.5)
          %y_pixel_5: f32[batch, 4] = ops.clip(%y_pixel_4, x_min=0.0, x_max=3.0)
          %y_round: f32[batch, 4] = ops.round(%y_pixel_5)
          %y_round_1: f32[batch, 4] = ops.round(%y_pixel_2)
          %y_within: f32[batch, 4] = ops.clip(%y_round, x_min=0.0, x_max=3.0)
          %y_within_1: f32[batch, 4] = ops.clip(%y_round_1, x_min=0.0, x_max=3.0)
          %y_cast: i64[batch, 4] = ops.cast(%y_within, dtype="int64")
          %y_row: i64[batch, 4] = ops.multiply(%y_cast, x2=4)
          %y_cast_1: i64[batch, 4] = ops.cast(%y_within_1, dtype="int64")
          %y_index: i64[batch, 4] = ops.add(%y_row, %y_cast_1)
          %y_index_1: i64[batch, 4, 1] = ops.expand_dims(%y_index, axis=-1)
          %y_pixel_6: f32[batch, 4, 3] = ops.take_along_axis(%y_pixels, %y_index_1, axis=1)
          %y_sampled: f32[batch, 3, 4] = ops.transpose(%y_pixel_6, axes=(0, 2, 1))
          %y: f32[batch, 3, 2, 2] = ops.reshape(%y_sampled, newshape=(batch, 3, 2, 2))
          return %y
        }

        entry Sample
    """
    return lower(program, "lower_sampling", {"aten.grid_sampler": _sampled, "aten.grid_sampler_2d": _sampled})


def _sampled(builder: Builder, node: Node) -> list[Node] | None:
    x, grid = node.used
    held, places = builder.tensor(x).shape, builder.tensor(grid).shape
    mode, padding = node.attrs["interpolation_mode"], node.attrs["padding_mode"]
    if len(held) != 4 or mode not in (_BILINEAR, _NEAREST) or padding not in (_ZEROS, _BORDER):
        return None
    batch, channels, height, width = held
    count = product(places[1:3])
    flat = builder.add("ops.reshape", x, newshape=(batch, channels, product((height, width))), title="flat")
    flat = builder.add("ops.transpose", flat, axes=(0, 2, 1), title="pixels")
    grid = builder.add("ops.reshape", grid, newshape=(batch, count, 2), title="points")
    aligned = flag(node, "align_corners") is True
    column = _pixel(builder, grid, 0, width, aligned, padding == _BORDER)
    row = _pixel(builder, grid, 1, height, aligned, padding == _BORDER)
    total = None
    for (y, y_weight), (x_, x_weight) in itertools.product(
        _neighbours(builder, row, mode), _neighbours(builder, column, mode)
    ):
        part = _gathered(builder, flat, y, x_, (height, width))
        weight = _product(builder, [y_weight, x_weight, *_inside(builder, y, x_, (height, width), padding)])
        if weight is not None:
            weight = builder.add("ops.expand_dims", weight, axis=-1, title="weight")
            part = builder.add("ops.multiply", part, weight, title="weighted")
        total = part if total is None else builder.add("ops.add", total, part, title="sum")
    assert total is not None
    total = builder.add("ops.transpose", total, axes=(0, 2, 1), title="sampled")
    return builder.finish("ops.reshape", total, newshape=node.tensor.shape)


def _pixel(builder: Builder, points: str, axis: int, size, aligned: bool, clipped: bool) -> str:
    """Coordinates from -1 to 1 as pixels."""
    at = builder.add("ops.get_item", points, key=("ellipsis", axis), title="coordinate")
    at = builder.add("ops.add", at, x2=1.0, title="coordinate")
    if aligned:
        at = builder.add("ops.multiply", at, x2=simplify(f"(({size}) - 1) / 2"), title="pixel")
    else:
        at = builder.add("ops.multiply", at, x2=simplify(f"({size}) / 2"), title="pixel")
        at = builder.add("ops.subtract", at, x2=0.5, title="pixel")
    return builder.add("ops.clip", at, x_min=0.0, x_max=simplify(f"({size}) - 1.0"), title="pixel") if clipped else at


def _neighbours(builder: Builder, at: str, mode) -> list[tuple[str, str | None]]:
    """The pixels next to a place on one axis, each with its weight."""
    if mode == _NEAREST:
        return [(builder.add("ops.round", at), None)]
    low = builder.add("ops.floor", at, title="low")
    fraction = builder.add("ops.subtract", at, low, title="fraction")
    rest = builder.add("ops.subtract", None, fraction, x1=1.0, title="rest")
    return [(low, rest), (builder.add("ops.add", low, x2=1.0, title="high"), fraction)]


def _gathered(builder: Builder, pixels: str, row: str, column: str, size: tuple) -> str:
    rows, columns = (
        builder.add("ops.clip", at, x_min=0.0, x_max=simplify(f"({length}) - 1.0"), title="within")
        for at, length in zip((row, column), size, strict=True)
    )
    row = builder.add("ops.multiply", builder.add("ops.cast", rows, dtype="int64"), x2=size[1], title="row")
    index = builder.add("ops.add", row, builder.add("ops.cast", columns, dtype="int64"), title="index")
    index = builder.add("ops.expand_dims", index, axis=-1, title="index")
    return builder.add("ops.take_along_axis", pixels, index, axis=1, title="pixel")


def _inside(builder: Builder, row: str, column: str, size: tuple, padding) -> list[str]:
    """One where a pixel lies inside the image, else zero."""
    if padding != _ZEROS:
        return []
    tests = []
    for at, length in zip((row, column), size, strict=True):
        tests.append(builder.add("ops.greater_equal", at, x2=0.0, title="from_first"))
        tests.append(builder.add("ops.less_equal", at, x2=simplify(f"({length}) - 1.0"), title="to_last"))
    inside = tests[0]
    for test in tests[1:]:
        inside = builder.add("ops.logical_and", inside, test, title="inside")
    return [builder.add("ops.cast", inside, dtype=builder.tensor(row).dtype, title="inside")]


def _product(builder: Builder, factors: list[str | None]) -> str | None:
    total = None
    for factor in factors:
        if factor is not None:
            total = factor if total is None else builder.add("ops.multiply", total, factor, title="weight")
    return total
