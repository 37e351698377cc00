"""Definitions of the `hub.*` idioms in `keras.ops`. What stands here is what they mean; the interpreter runs it.

Sequences are (batch, seq, heads, dim), masks are boolean and true where a query may see a key.
"""

from hf2khc.ir.float64 import keras_on_torch
from hf2khc.ir.frequencies import Frequencies


def rms_norm(x, scale, epsilon):
    """Root mean square normalization over the last axis: `x / sqrt(mean(x^2) + epsilon) * scale`.

    Zhang and Sennrich, Root Mean Square Layer Normalization (2019), equation 4.

    Args:
        x: (..., dim).
        scale: (dim,).
        epsilon: float.

    Returns:
        like `x`.
    """
    ops = keras_on_torch().ops
    wide = ops.cast(x, "float32")
    normal = wide * ops.rsqrt(ops.mean(ops.square(wide), axis=-1, keepdims=True) + epsilon)
    return ops.cast(normal * ops.cast(scale, "float32"), x.dtype)


def rotary_embedding(x, cos, sin, interleaved=False):
    """Rotation of pairs of entries by position: `x * cos + rotate(x) * sin`.

    Su et al., RoFormer (2021), equation 34. The pairs are `(i, i + dim / 2)`, or `(2i, 2i + 1)` where interleaved.

    Args:
        x: (batch, seq, heads, dim).
        cos, sin: (batch or 1, seq, dim), of the angle of each entry's pair. Fewer entries than `dim` rotate the first
            ones and leave the rest as they are.

    Returns:
        like `x`.
    """
    ops = keras_on_torch().ops
    size = cos.shape[-1]
    turned, rest = x[..., :size], x[..., size:]
    if interleaved:
        rotated = ops.reshape(ops.stack([-turned[..., 1::2], turned[..., ::2]], axis=-1), ops.shape(turned))
    else:
        rotated = ops.concatenate([-turned[..., size // 2 :], turned[..., : size // 2]], axis=-1)
    cos, sin = ops.expand_dims(cos, 2), ops.expand_dims(sin, 2)
    turned = ops.cast(turned * cos + rotated * sin, x.dtype)
    return ops.concatenate([turned, rest], axis=-1) if rest.shape[-1] else turned


def rotary_frequencies(max_wavelength, size, scaling_factor=1.0):
    """Angle per position of each pair of entries: `max_wavelength ** (-2 i / size) / scaling_factor`.

    Su et al., RoFormer (2021), section 3.2.2; the factor is that of linear position interpolation.

    Args:
        max_wavelength: float, the base.
        size: int, entries that are rotated.
        scaling_factor: float, what positions are divided by.

    Returns:
        ((size + 1) // 2,), float.
    """
    return keras_on_torch().ops.convert_to_tensor(Frequencies(max_wavelength, size, scaling_factor).table())


def causal_mask(query_positions, key_positions, window=None):
    """Which keys a query may see: its own and those before it.

    Args:
        query_positions: (1, 1, queries, 1), integers.
        key_positions: (1, 1, 1, keys), integers.
        window: how many keys up to its own a query sees at most; all of them for None.

    Returns:
        (1, 1, queries, keys), bool.
    """
    ops = keras_on_torch().ops
    mask = ops.less_equal(key_positions, query_positions)
    if window is None:
        return mask
    return ops.logical_and(mask, ops.greater(key_positions, query_positions - window))
