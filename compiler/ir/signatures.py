"""What Keras says about its own ops and layers: parameters and how the operands of a node bind to them."""

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from hf2khc.diagnostics import fail
from hf2khc.ir.float64 import keras_hub_on_torch, keras_on_torch

# Ops that take all their operands as one list in the place of this parameter.
LIST_OPS = {
    "ops.concatenate": "xs", "ops.stack": "x", "ops.einsum": "operands", "ops.meshgrid": "x",
    # Real and imaginary parts.
    "ops.fft": "x", "ops.fft2": "x", "ops.ifft2": "x", "ops.irfft": "x",
}  # fmt: skip


@functools.cache
def layer(name: str):
    """The class of `keras.layers`, or else of `keras_hub.layers`, of this name; `None` where there is none."""
    home = keras_on_torch() if is_of_keras(name) else keras_hub_on_torch()
    return getattr(home.layers, name, None)


def is_of_keras(name: str) -> bool:
    """Whether `keras.layers` has a layer of this name; `keras_hub.layers` is asked for the others."""
    return hasattr(keras_on_torch().layers, name)


@functools.cache
def function(op: str):
    """The function of `keras.ops` or the layer's class an op names; `None` where there is none."""
    level, _, name = op.partition(".")
    if level == "layers":
        return layer(name)
    found: Any = keras_on_torch().ops if level == "ops" else None
    for part in name.split("."):  # `ops.image.resize` lies in a module of its own
        found = getattr(found, part, None)
    return found


@functools.cache
def parameters(op: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of an op by name, in order; for a layer those of its constructor.

    Raises:
        ConversionError: Keras has no such op.
    """
    called = function(op)
    if called is None:
        raise fail("unknown-op", f"{op} does not exist in Keras")
    found = dict(inspect.signature(called).parameters)
    if op.startswith("layers."):
        keyword = inspect.Parameter.KEYWORD_ONLY
        found |= {
            name: inspect.Parameter(name, keyword, default=None) for name in ("name", "dtype") if name not in found
        }
        found = {name: p for name, p in found.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}
    return found


def slot_names(op: str) -> tuple[str, ...]:
    """Names of the parameters that operands fill by position; empty for layers and for ops that take a list."""
    if not op.startswith("ops.") or op in LIST_OPS:
        return ()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(name for name, p in parameters(op).items() if p.kind in positional)


def bind_call(op: str, operands: Sequence, attrs: Mapping[str, object]) -> tuple[list, dict[str, object]]:
    """Positional and keyword arguments of the `keras.ops` function an op names.

    Args:
        operands: values, `None` for a parameter given as an attribute.
        attrs: evaluated attributes, no `Expr` left.
    """
    keywords = dict(attrs)
    if op == "ops.einsum":
        return [keywords.pop("subscripts"), *operands], keywords
    if op == "ops.meshgrid":
        return list(operands), keywords
    if op in LIST_OPS:
        return [list(operands)], keywords
    if op == "ops.get_item":
        return [operands[0], index_key(keywords["key"])], {}
    for name, operand in zip(slot_names(op), operands, strict=False):
        if operand is not None:
            keywords[name] = operand
    return [], keywords


# The entry of a `key` attribute that takes an axis as it is.
WHOLE = ("slice", None, None, None)


def axis_entries(key, rank: int) -> list:
    """The entries of a `key` attribute with the ellipsis, and axes it does not mention, spelt out as whole slices.

    Args:
        key: of `ops.get_item`.
        rank: of what is indexed; but for `newaxis` there is one entry per axis.
    """
    entries = list(key) if isinstance(key, tuple) and key[:1] != ("slice",) else [key]
    rest = [WHOLE] * (rank - sum(entry not in ("ellipsis", "newaxis") for entry in entries))
    place = entries.index("ellipsis") if "ellipsis" in entries else len(entries)
    return [*entries[:place], *rest, *entries[place + 1 :]]


def only_entry(key, axis: int, rank: int):
    """The entry of a `key` attribute for the one axis that it indexes; None where it indexes others, too."""
    entries = axis_entries(key, rank)
    if len(entries) != rank or any(entry != WHOLE for i, entry in enumerate(entries) if i != axis):
        return None
    return entries[axis]


def axis_key(entry, axis: int, rank: int) -> tuple:
    """The `key` attribute that indexes one axis, the others whole; the last axis from the back."""
    if axis == rank - 1 and rank > 1:
        return ("ellipsis", entry)
    return (*(WHOLE,) * axis, entry)


def index_key(key):
    """A `key` attribute as Python indexes with it: ints, slices, `...` and `None`."""
    if not isinstance(key, tuple) or key[:1] == ("slice",):
        key = (key,)
    return tuple(map(_index, key))


def _index(entry):
    if isinstance(entry, tuple):
        return slice(*entry[1:])
    return {"ellipsis": Ellipsis, "newaxis": None}[entry] if isinstance(entry, str) else entry
