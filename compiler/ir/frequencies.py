"""Frequencies of rotary position embeddings: the two numbers behind a table of them."""

from dataclasses import dataclass

import numpy as np

# Rounding of a table that torch computed in float32: a power, a division, perhaps a second one. One of float64 is made
# by the formula itself.
_ROUNDED = 6e-7
_EXACT = 1e-14
_DIGITS = 7
# More digits than these are no number that somebody wrote down.
_WRITTEN = 5
# A single frequency is the same at any wavelength; this one is RoFormer's.
_USUAL = 10000.0


@dataclass(frozen=True)
class Frequencies:
    """`max_wavelength ** (-2 i / size) / scaling_factor` for `i` in `range(ceil(size / 2))`.

    Su et al., RoFormer (2021), section 3.2.2, where the maximum wavelength is 10000; linear scaling is Chen et al.,
    Extending Context Window of Large Language Models via Positional Interpolation (2023).

    Args:
        max_wavelength: the base, above 1.
        size: entries that are rotated, twice as many as there are frequencies, or one less.
        scaling_factor: what positions are divided by.
    """

    max_wavelength: float
    size: int
    scaling_factor: float = 1.0

    def table(self) -> np.ndarray:
        """The frequencies, (ceil(size / 2),) float64."""
        return self.max_wavelength ** (-np.arange(0, self.size, 2) / self.size) / self.scaling_factor


def frequencies(table: np.ndarray) -> Frequencies | None:
    """The numbers of as few digits as possible that give a table; `None` where none do.

    Args:
        table: (ceil(size / 2),), any float dtype; one of float64 has to come out of the formula itself.
    """
    if table.ndim != 1 or not len(table) or table.dtype.kind != "f" or not np.isfinite(table).all():
        return None
    wide = table.astype(np.float64)
    if not (wide > 0).all() or not (np.diff(wide) < 0).all():
        return None
    exact = table.dtype == np.float64
    even, odd = (_found(wide, size, _EXACT if exact else _ROUNDED) for size in (2 * len(wide), 2 * len(wide) - 1))
    # A share of a head's entries may be odd. By the other size the base is a power of the one that somebody wrote down.
    return odd if odd and _digits(odd) <= _WRITTEN < (_digits(even) if even else _DIGITS) else even


def _found(wide: np.ndarray, size: int, tolerance: float) -> Frequencies | None:
    """The numbers that give a table of entries of this size."""
    base = (wide[0] / wide[-1]) ** (size / (2 * len(wide) - 2)) if len(wide) > 1 else _USUAL
    for digits in range(1, _DIGITS + 1):
        found = Frequencies(_rounded(base, digits), size, _rounded(1 / wide[0], digits))
        if found.max_wavelength > 1 and np.allclose(found.table(), wide, rtol=tolerance, atol=0):
            return found
    return None


def _digits(found: Frequencies) -> int:
    """Significant digits of the wavelength."""
    return len(f"{found.max_wavelength:.{_DIGITS - 1}e}".partition("e")[0].rstrip("0").replace(".", ""))


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits - 1}e}")
