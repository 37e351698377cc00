"""What one input of a model is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# Arrays by argument name.
Example = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Input:
    """One tensor argument of a model's forward.

    Args:
        name: the argument's name.
        dtype: `int64`, `int32`, `float32` or `bool`.
        shape: sizes, and names of symbols where the size is free.
        fill: how a sample is drawn: `("randint", low, high)`, `("ones",)`, `("zeros",)`, `("normal",)`,
            `("normal", mean, spread)`, `("uniform", low, high)` or `("given", array)`.
        role: `data`, or `mask` where 0 marks padding.
        end: the token that ends every row, where there is one.
        pad: the token that stands where the mask is 0, where there is one.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    fill: tuple[Any, ...]
    role: str = "data"
    end: int | None = None
    pad: int | None = None
