"""Frequencies of rotary position embeddings: the two numbers behind a table of them."""

import itertools
from dataclasses import dataclass

import numpy as np

# A table that the formula itself gave has its numbers again; else that of torch is rounded to float32: a power, a
# division, perhaps a second one.
_TOLERANCES = (1e-14, 6e-7)
_DIGITS = 7
# Digits, and how many entries less than twice the frequencies: an odd number of entries is believed for a round
# wavelength alone, as any wavelength is near some number of many digits.
_WAYS = [*((n, odd) for odd in (0, 1) for n in (1, 2, 3)), *((n, 0) for n in range(4, _DIGITS + 1))]
# A single frequency is the same at any wavelength; this one is RoFormer's.
_USUAL = 10000.0


@dataclass(frozen=True)
class Frequencies:
    """`max_wavelength ** (-2 i / size) / scaling_factor` for `2 i` below `size`.

    Su et al., RoFormer (2021), section 3.2.2, where the maximum wavelength is 10000; linear scaling is Chen et al.,
    Extending Context Window of Large Language Models via Positional Interpolation (2023).

    Args:
        max_wavelength: the base, above 1.
        size: entries that are rotated, twice as many as there are frequencies; one less where a fraction of a head is
            an odd number.
        scaling_factor: what positions are divided by.
    """

    max_wavelength: float
    size: int
    scaling_factor: float = 1.0

    def table(self) -> np.ndarray:
        """The frequencies, ((size + 1) // 2,) float64."""
        return self.max_wavelength ** (-np.arange(0, self.size, 2) / self.size) / self.scaling_factor


def frequencies(table: np.ndarray) -> Frequencies | None:
    """The numbers of as few digits as possible that give a table; `None` where none do.

    Args:
        table: ((size + 1) // 2,), any float dtype.
    """
    if table.ndim != 1 or not len(table) or table.dtype.kind != "f" or not np.isfinite(table).all():
        return None
    wide = table.astype(np.float64)
    if not (wide > 0).all() or not (np.diff(wide) < 0).all():
        return None
    last = 2 * (len(wide) - 1)
    for tolerance, (digits, odd) in itertools.product(_TOLERANCES, _WAYS):
        if odd and not last:
            continue
        size = last + 2 - odd
        base = (wide[0] / wide[-1]) ** (size / last) if last else _USUAL
        found = Frequencies(_rounded(base, digits), size, _rounded(1 / wide[0], digits))
        if found.max_wavelength > 1 and np.allclose(found.table(), wide, rtol=tolerance, atol=0):
            return found
    return None


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits - 1}e}")
