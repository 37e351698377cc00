"""Keras on the torch backend, computing in float64.

Keras treats float64 as float32: most of its operations resolve dtypes through a table that maps 64-bit types to 32-bit
ones, and many spell `float32` out. Here the table keeps float64 and the dtype named `float32` *is* float64, so whatever
asks for float32 (a norm's statistics, a softmax, a rotary table) gets at least that.
"""

import contextlib
import os
import sys
from collections.abc import Iterator

from hf2khc.diagnostics import fail


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Keras computes in float64 inside: operations, casts, creation, layers and their variables; no gradients.

    Imports keras with the torch backend where it is not imported yet. Process-wide, not thread-safe, may be nested.

    Raises:
        ConversionError: keras is running on another backend.
    """
    keras = keras_on_torch()
    from keras.src.backend.common import dtypes
    from keras.src.backend.torch import core

    torch = core.torch
    floatx, default = keras.config.floatx(), torch.get_default_dtype()
    policy = keras.config.dtype_policy()
    tables = {"float64": "float64", "complex128": "complex128"}
    names = {"float32": torch.float64, "complex64": torch.complex128}
    with _updated(dtypes.BIT64_TO_BIT32_DTYPE, tables), _updated(core.TORCH_DTYPES, names), torch.no_grad():
        try:
            keras.config.set_floatx("float64")
            keras.config.set_dtype_policy("float64")
            torch.set_default_dtype(torch.float64)
            yield
        finally:
            keras.config.set_floatx(floatx)
            keras.config.set_dtype_policy(policy)
            torch.set_default_dtype(default)


@contextlib.contextmanager
def types_of_the_model() -> Iterator[None]:
    """Keras resolves dtypes inside as it does by itself, within `float64` too: types speak of the model as it is."""
    keras = keras_on_torch()
    from keras.src.backend.common import dtypes

    floatx = keras.config.floatx()
    with _updated(dtypes.BIT64_TO_BIT32_DTYPE, {"float64": "float32", "complex128": "complex64"}):
        keras.config.set_floatx("float32")
        try:
            yield
        finally:
            keras.config.set_floatx(floatx)


def keras_on_torch():
    """The keras module, on the torch backend.

    Raises:
        ConversionError: it runs on another one already.
    """
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"
    import keras

    if keras.backend.backend() != "torch":
        raise fail(
            "keras-backend",
            f"programs are interpreted with Keras on torch, but Keras runs on {keras.backend.backend()}",
            hint="set KERAS_BACKEND=torch before keras is imported",
        )
    return keras


def keras_hub_on_torch():
    """The keras_hub module, with Keras on the torch backend.

    Raises:
        ConversionError: Keras runs on another one already.
    """
    keras_on_torch()
    import keras_hub

    return keras_hub


@contextlib.contextmanager
def _updated(table: dict, changes: dict) -> Iterator[None]:
    before = {key: table[key] for key in changes}
    table.update(changes)
    try:
        yield
    finally:
        table.update(before)
