"""Frequencies of rotary embeddings: from tables that torch rounded back to two numbers."""

import numpy as np
import pytest
import torch

from hf2khc.ir.float64 import float64, keras_hub_on_torch, keras_on_torch
from hf2khc.ir.frequencies import Frequencies, frequencies


def table(base: float, size: int, factor: float = 1.0) -> np.ndarray:
    """As transformers computes it, in float32."""
    return (1.0 / (base ** (torch.arange(0, size, 2, dtype=torch.int64).float() / size)) / factor).numpy()


@pytest.mark.parametrize("base", [10000.0, 500000.0, 1e6, 11875.0, 160000.0, 1250000.0])
@pytest.mark.parametrize("size", [4, 12, 64, 128, 256])
@pytest.mark.parametrize("factor", [1.0, 8.0, 2.5])
def test_the_numbers_behind_a_table(base, size, factor):
    assert frequencies(table(base, size, factor)) == Frequencies(base, size, factor)


@pytest.mark.parametrize("base", [10000.0, 500000.0, 10600.0])
@pytest.mark.parametrize("size", [3, 7, 45])
def test_an_odd_number_of_entries(base, size):
    """Three entries of a head of twelve: a quarter."""
    assert frequencies(table(base, size)) == Frequencies(base, size)


def test_other_tables_have_none():
    good = table(10000.0, 64)
    changed = good.copy()
    changed[7] *= 1 + 1e-5
    for other in (changed, good[::-1].copy(), -good, np.ones(8, "float32"), good[:0], good.astype("int64")):
        assert frequencies(other) is None
    assert frequencies(good.reshape(2, 16)) is None


@pytest.mark.parametrize(("base", "size"), [(5000003.0, 12), (9128428.0, 12), (9351374.0, 9)])
def test_the_table_of_the_numbers_has_the_same_numbers(base, size):
    """Of a base of many digits fewer would do for a table of float32."""
    found = frequencies(table(base, size))
    assert found is not None and frequencies(found.table()) == found


def test_one_frequency_is_the_same_at_any_wavelength():
    assert frequencies(table(500000.0, 2, 4.0)) == Frequencies(10000.0, 2, 4.0)
    assert frequencies(table(500000.0, 2, 2.5)) == Frequencies(10000.0, 2, 2.5)


def test_the_layer_of_kerashub_turns_by_the_same_angles():
    """Its own code in float64 against the formula: what `layers.RotaryEmbedding` means in the IR."""
    keras = keras_on_torch()
    with float64():
        layer = keras_hub_on_torch().layers.RotaryEmbedding(max_wavelength=500000.0, scaling_factor=4.0)
        x = keras.random.normal((2, 5, 3, 8), dtype="float64", seed=1)
        found = layer(x).numpy()
    angles = np.arange(5)[:, None] * Frequencies(500000.0, 8, 4.0).table()
    cos, sin = (np.concatenate([f(angles), f(angles)], -1)[None, :, None] for f in (np.cos, np.sin))
    x = x.numpy()
    expected = x * cos + np.concatenate([-x[..., 4:], x[..., :4]], -1) * sin
    assert np.abs(found - expected).max() < 1e-12
