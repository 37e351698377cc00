"""Other numbers that could stand in the place of those in a config.

Names of fields only choose which values are tried first; whether a value is taken is decided by building and running
the model with it.
"""

import itertools
import re
from collections.abc import Container, Mapping
from types import MappingProxyType
from typing import Any

from hf2khc.capture.twin_fields import LARGE, POSITIONS, Field

HEADS = re.compile(r"heads?$|n_head|head_count|query_groups|num_kv|kv_groups")
GROUPED = re.compile(r"kv|key_value|query_groups")
WIDTH = re.compile(r"(^|\.)(hidden_size|d_model)$")
HEAD_DIM = re.compile(r"head_(dim|size)|d_(kv|head)$|attention_head_size")
WINDOW = re.compile(r"window")
# Entries of a head that are rotated: fewer than the smallest head has, and even.
ROTATED = re.compile(r"^rotary_n?dims?$")
KERNEL = re.compile(r"kernel|conv")
# By what heads are divided.
HEAD_RATIO = re.compile(r"head_ratio$")
DROPOUT = re.compile(r"drop")
# Few heads, how many times as many in all, and their size; large sizes for models that split or group a head.
HEAD_SHAPES = [(few, ratio, size) for ratio in (2, 4) for size in (8, 16, 24, 64) for few in (3, 5, 7, 9)]

# Of images that are cut by strides alone; 121 tells what is rounded up from what is rounded down.
IMAGES = (64, 121, 160, 96)


class Proposer:
    """Values for the fields of one config. First alternatives differ from each other and from what they replace.

    Args:
        fields: of the config.
        apart: other values by path that a field should not come back to: those of the real model, for a second twin.
    """

    def __init__(self, fields: list[Field], apart: Mapping[str, Any] = MappingProxyType({})):
        self.fields, self.apart = fields, apart
        self.used: set[int] = set()
        # What a field had, and what it may get: no two fields have both alike.
        self.pairs: set[tuple[int, int]] = set()
        self.parts: set[tuple[float, float]] = set()
        self.floats = 0

    def groups(self) -> list[list[dict[str, Any]]]:
        """Fields that change together, each group as alternatives `{path: value}`, the best first."""
        groups: list[list[dict[str, Any]]] = []
        done: set[str] = set()
        for part in dict.fromkeys(field.part for field in self.fields):
            here = [field for field in self.fields if field.part == part]
            for group in (self._attention(here), self._image(here)):
                if group:
                    groups.append(group)
                    done |= group[0].keys()
        # The least free values first: a window has to stay below the length of a trace, a large size may be any.
        rest = sorted((f for f in self.fields if f.path not in done), key=lambda f: not WINDOW.search(f.name))
        groups += [self._single(field) for field in rest]
        return [group for group in groups if group]

    def _fresh(self, olds: Container[Any], start: int, step: int) -> int:
        value = start
        while value in self.used or value in olds:
            value += step
        self.used.add(value)
        return value

    def _take(self, chosen: list[dict[str, Any]], original: dict[str, int]) -> None:
        for values in chosen:
            self.used |= set(values.values())
            self.pairs |= {(original[path], value) for path, value in values.items()}

    def _attention(self, fields: list[Field]) -> list[dict[str, Any]]:
        """Width, heads, grouped heads and size of a head: the ratios that occur stay, 1 stays 1."""
        heads = [f for f in fields if HEADS.search(f.name) and not HEAD_DIM.search(f.name) and type(f.value) is int]
        width = [f for f in fields if WIDTH.search(f.name) and type(f.value) is int]
        if not heads:
            return []
        main = max(heads, key=lambda f: (not GROUPED.search(f.name), f.value))
        sizes = [f for f in fields if HEAD_DIM.search(f.name) and type(f.value) is int]
        ratios = [f for f in fields if HEAD_RATIO.search(f.name) and type(f.value) is int and f.value > 1]
        original = {field.path: field.value for field in (*heads, *width, *sizes, *ratios)}
        # How many query heads share a key head is a number of the config like any other.
        grouping = main.value / min(field.value for field in heads)
        # So is the size of a head, where it is no field of its own: width / heads.
        per_head = {width[0].value / main.value, self._head_apart(width[0], main)} if width else set()
        # Heads that are divided are left in another number.
        left = {main.value // field.value for field in ratios}
        rest = sizes[0].value % 8 if sizes and self._is_odd_part(sizes[0].value) else 0
        shapes = [
            (few, ratio, size + rest)
            for few, ratio, size in HEAD_SHAPES
            if ratio not in {grouping, *left} and size + rest not in per_head
        ]
        # A size of its own for a head keeps it apart from width / heads, where the model lets it be free.
        free, derived = (
            sorted(
                (values for values in options if _all_differ(values, original)),
                key=lambda values: (self._comes_back(values), not self.used.isdisjoint(values.values())),
            )
            for options in (
                [
                    _attention_values(main, heads, width, sizes, *shape, free=free)
                    | {field.path: shape[0] for field in ratios}
                    for shape in shapes
                ]
                for free in (True, False)
            )
        )
        options = free[:1] + derived[:1] + free[1::4] + derived[1::4]
        self._take(options[:1], original)
        return options

    def _is_odd_part(self, head: int) -> bool:
        """Whether an odd number of the entries of a head is rotated: that is so at other sizes as well, or another way.

        Three of twelve are two pairs.
        """
        parts = [f.value for f in self.fields if isinstance(f.value, float) and _is_part(f.name, f.value)]
        return any(int(head * part) % 2 for part in parts)

    def _head_apart(self, width: Field, heads: Field) -> float:
        wide, many = self.apart.get(width.path), self.apart.get(heads.path)
        return wide / many if wide and many else 0

    def _image(self, fields: list[Field]) -> list[dict[str, Any]]:
        # The size may be one number, or the height and the width, as a list or each by its name.
        named = [field for field in fields if "image_size" in field.path.split(".")[-2:]]
        images = {f.path: f.value if isinstance(f.value, list) else [f.value] for f in named}
        sizes = {size for sides in images.values() for size in sides}
        if len(sizes) != 1 or not all(type(size) is int for size in sizes):
            return []
        (value,) = sizes
        patch = next((field for field in fields if field.name == "patch_size" and type(field.value) is int), None)
        if patch is None or value % patch.value or named[0].value != value or len(named) > 1:
            others = (*_after(value, IMAGES), value // 2, value * 2)
            return [{f.path: [n] * len(f.value) if isinstance(f.value, list) else n for f in named} for n in others]
        grid = value // patch.value
        window = next((f for f in fields if f.name == "window_size" and type(f.value) is int), None)
        windowed = [] if window is None or grid % window.value else self._windowed(named[0], patch, window)
        return windowed + self._patched(named[0], patch)

    def _windowed(self, image: Field, patch: Field, window: Field) -> list[dict[str, Any]]:
        """The same with windows of patches, as many as before: a stage that ends within one is padded."""
        count = image.value // patch.value // window.value
        fields = (image, patch, window)
        options = [(size, side) for size in (6, 10) for side in range(window.value + 1, window.value + 4)]
        found = [
            dict(zip((f.path for f in fields), (size * side * count, size, side), strict=True))
            for size, side in options
            if size != patch.value
        ]
        return self._preferred(found, *fields)[:1]

    def _patched(self, image: Field, patch: Field) -> list[dict[str, Any]]:
        """A size of images and one of the patches that they are cut into."""
        grid = image.value // patch.value
        # Windows and strides divide the larger ones; a grid as before only where there is no other.
        counts = sorted((5, 4, 8, 12, grid), key=lambda count: count == grid)
        sides = (6, 10, patch.value // 2, patch.value + 2, patch.value * 2)
        options = [(size, count) for size in sides for count in dict.fromkeys(counts)]
        # What equals another number here and there is not told apart from it.
        options.sort(key=lambda option: not self.used.isdisjoint((option[0], option[0] * option[1])))
        found = [
            {image.path: size * count, patch.path: size}
            for size, count in options
            if size > 1 and size != patch.value and size * count != image.value
        ]
        return self._preferred(found, image, patch)

    def _preferred(self, found: list[dict[str, Any]], *fields: Field) -> list[dict[str, Any]]:
        """Alternatives for fields, what comes back last; the first is taken."""
        found = sorted(found, key=self._comes_back)
        self._take(found[:1], {field.path: field.value for field in fields})
        return found

    def _comes_back(self, values: Mapping[str, Any]) -> bool:
        return any(self.apart.get(path) == value for path, value in values.items())

    def _single(self, field: Field) -> list[dict[str, Any]]:
        found = [{field.path: value} for value in self._values(field) if value != field.value]
        return sorted(found, key=self._comes_back)

    def _values(self, field: Field) -> list[Any]:
        value, olds = field.value, (field.value, self.apart.get(field.path))
        if isinstance(value, list):
            return self._lists(field, value)
        if isinstance(value, float):
            return self._float_values(field, value)
        if WINDOW.search(field.name):
            return [self._fresh(olds, 4, 1), value // 2, value * 2]
        if ROTATED.search(field.name):
            return [4 if value != 4 else 6, value // 2, value * 2]
        if "vocab" in field.name and value > 64:
            return [self._fresh(olds, 97, 2), self._fresh(olds, 128, 8)]
        if POSITIONS.search(field.name) and value > 2 * LARGE:
            return [self._fresh(olds, 72, 8), value // 2, value * 2]
        if value < LARGE:
            near = self._near(field)
            return [near, value + 1, value + 2, value * 2, value // 2, value - 1]
        return [self._fresh(olds, 24, 8), 64, 128, value // 2, value * 2]

    def _near(self, field: Field) -> int:
        """A small number near by: what a model multiplies would grow from twin to twin if each went far up.

        Two of them may become equal where they were not before: that tells them apart, too.
        """
        # Odd stays odd: kernels are centred. One that is even is not, and a model cuts what it has too much, so that
        # an odd one would give another program. Too much is 2, or 3, already.
        least = 5 if field.value % 2 else 4
        step = 2 if field.value % 2 or KERNEL.search(field.name) else 1
        for distance in itertools.count(step, step):
            below, above = field.value - distance, field.value + distance
            for value in (below, above) if below >= least else (above,):
                if (field.value, value) not in self.pairs and value != self.apart.get(field.path):
                    self.pairs.add((field.value, value))
                    return value
        raise AssertionError("there is always a larger one")

    def _lists(self, field: Field, value: list[int]) -> list[list[int]]:
        fresh = {size: self._fresh((size,), 24, 8) for size in dict.fromkeys(value)}
        return [[fresh[size] for size in value], [size // 2 for size in value], [size * 2 for size in value]]

    def _float_values(self, field: Field, value: float) -> list[float]:
        if _is_part(field.name, value):
            heads = (f.value for f in self.fields if HEAD_DIM.search(f.name) and type(f.value) is int)
            if value in (0.25, 0.75) and any(map(self._is_odd_part, heads)):
                return [1 - value]
            return [self._part(value, self.apart.get(field.path)), value / 2]
        self.floats += 1
        factor = 1 + self.floats / 16
        below_one = 0 < value < 1 and (DROPOUT.search(field.name) or value * factor >= 1)
        # Few digits: a wavelength is read off the frequencies that torch has rounded.
        first = round(value / factor, 12) if below_one else float(f"{value * factor:.3g}")
        return [first, value / 2, value * 2]

    def _part(self, value: float, apart: float | None) -> float:
        """Another quarter or eighth: a part of something, a head that is rotated say, is to be a whole number.

        Quarters come first: of those of a head pairs can be made.
        """
        parts = (0.5, 0.75, 0.25, 0.375, 0.625, 0.875, 0.125)
        pairs = [(value, part) for part in parts if part not in (value, apart)]
        pair = next((pair for pair in pairs if pair not in self.parts), pairs[0])
        self.parts.add(pair)
        return pair[1]


def _is_part(name: str, value: float) -> bool:
    """Whether a number is a part of something: quarters or eighths of it."""
    return 0 < value < 1 and value * 8 == int(value * 8) and not DROPOUT.search(name)


def _after(value: int, ring: tuple[int, ...]) -> tuple[int, ...]:
    """The others of a ring, from the one after `value`: a twin of a twin does not come back to the real value."""
    place = ring.index(value) + 1 if value in ring else 0
    return tuple(other for other in (*ring[place:], *ring[:place]) if other != value)


def _attention_values(
    main: Field, heads: list[Field], width: list[Field], sizes: list[Field], few: int, ratio: int, size: int, free: bool
) -> dict[str, Any]:
    """Values for the fields of attention: `few * ratio` heads of `size`, `few` where heads are grouped.

    Where heads are grouped more than once, or of more than one kind, each count is twice the next smaller one, or more.
    With `free`, a field for the size of a head is not width / heads.
    """
    grouped = sorted({field.value for field in heads} - {main.value})
    counts = {old: few * 2**place for place, old in enumerate(grouped)}
    count = few * ratio * 2 ** max(0, len(grouped) - 1)
    values = {field.path: counts.get(field.value, count) for field in heads}
    values |= {field.path: count * size for field in width}
    for index, field in enumerate(sizes):
        values[field.path] = size + 8 * (index + 1) if free or index else size
    return values


def _all_differ(values: dict[str, Any], original: dict[str, Any]) -> bool:
    """Whether every value is new, and as many differ from each other as before."""
    if any(values[path] == value for path, value in original.items()):
        return False
    return len(set(values.values())) >= len(set(original.values()))
