"""The forms that a number may have: expressions over `x`, `y` and `z`, which stand for config fields."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf2khc.ir.expr import compiled


@dataclass(frozen=True)
class Form:
    """An expression in Python syntax over `x`, `y`, `z`."""

    text: str

    def over(self, names: Sequence[str]) -> str:
        """The text with the fields in the places of the letters."""
        return _LETTER.sub(lambda letter: names["xyz".index(letter[0])], self.text)


_LETTER = re.compile(r"\b[xyz]\b")


def agrees(text: str, columns: Mapping[str, tuple], values: tuple) -> bool:
    """Whether an expression gives `values`.

    Args:
        text: over the names of `columns`.
        columns: what each name stands for at every config.
        values: what is sought, at every config.
    """
    names, function = compiled(text)
    try:
        return all(
            close(function(*[columns[name][place] for name in names]), value) for place, value in enumerate(values)
        )
    except (ZeroDivisionError, ValueError, TypeError, OverflowError):
        return False


def close(x: Any, y: Any) -> bool:
    """Whether two numbers are equal: integers exactly, others up to rounding."""
    if isinstance(x, int) and isinstance(y, int):
        return x == y
    return math.isclose(x, y, rel_tol=1e-12, abs_tol=0.0) and (isinstance(y, float) or float(x).is_integer())


def _forms(*texts: str) -> tuple[Form, ...]:
    return tuple(map(Form, texts))


BARE = _forms("x")
# The last is what scales the angles of YaRN (Peng et al., 2023).
REAL_OF_ONE = _forms("x ** -0.5", "sqrt(x)", "sqrt(x + 1)", "1.0 / x", "-x", "1 - x", "0.1 * log(x) + 1")
OF_ONE = _forms(
    "-x", "x - 1", "x + 1", "x + 2", "x // 2", "x // 2 - 1", "-(x // 2)", "x // 4", "x // 8",
    # What is left when a half, and a half of a half, is taken away: an odd number tells it from the half.
    "x - x // 2", "x // 2 - x // 4", "2 * x", "3 * x", "4 * x", "6 * x", "8 * x",
)  # fmt: skip

QUOTIENTS = _forms("x // y", "-(x // y)")
SYMMETRIC = _forms("x * y", "x + y", "x + y + 1")
# Heads of which a part is rotated.
REAL_SYMMETRIC = _forms("(x + y) ** -0.5")
# Widths of heads, and the logarithmic buckets of relative positions.
REAL_OF_TWO = _forms(
    "(x // y) ** -0.5", "(2 * x // y) ** -0.5", "sqrt(x // y)", "(x // y) ** 0.25",
    "log(x / (y // 2))", "log(x / (y // 4))", "log(x / y)", "x / y",
)  # fmt: skip
# Patches of an image, alone and with one token or two before them.
PATCHES = _forms(
    "x // y // 2", "(x // y + 1) // 2", "(x // y) ** 2", "(x // y) ** 2 + 1", "(x // y) ** 2 + 2"
)  # fmt: skip
OF_TWO = _forms(
    "2 * x * y", "x - y", "x + 2 * y", "x * y // 2", "x * y ** 2",
    # The one head of keys, and of keys and values, that stands behind all heads of queries.
    "x + x // y", "x + 2 * (x // y)",
)  # fmt: skip

# Widths of the sides and corners of a box, distances between two positions, the place of none in a window of them.
RARE_OF_ONE = _forms("x // 6", "2 * x - 1", "2 * x * (x - 1)")

# Learned ones beside the patches of an image.
TOKENS = _forms("x", "x + 1", "x + 2")

# A fraction of a size: what is rotated of a head, and half of that; a multiple where each stage is twice as wide. Of an
# odd number of entries that are rotated the last has a pair as well.
PART_OF_ONE = _forms(
    "int(x * y)", "int(x * y) // 2", "int(2 * x * y)", "int(4 * x * y)", "int(8 * x * y)",
    "int(x * y) + int(x * y) % 2", "(int(x * y) + 1) // 2",
)  # fmt: skip
# Residuals by the number of layers.
REAL_PART_OF_ONE = _forms("y / sqrt(x)")
# What YaRN multiplies scores with, of one field and of two.
STRETCHED = _forms("(0.1 * log(x) + 1) ** 2", "(0.1 * y * log(x) + 1) ** 2")
PART_OF_TWO = _forms("int(x // y * z)")

OF_THREE = _forms(
    "x * y // z", "(x + y) * z", "(x + 2 * y) * z",
    # Patches of an image, and tokens that a field counts before them.
    "(x // y) ** 2 + z", "(x // y) ** 2 + z + 1", "x // y + 2 * z",
)  # fmt: skip

# Heads that are narrower, or fewer, by another field; windows of patches, stage by stage.
OF_THREE_IN_TURN = _forms(
    "x // y * z", "x // y // z", "x // y // z // 2", "x // y // z // 4", "x // y // z // 8", "x // (y // z) // 2",
    "x + y + z",
    # Where a window that is shifted by half begins again.
    "x // y - z // 2", "x // y // 2 - z // 2", "x // y // 4 - z // 2",
)  # fmt: skip
