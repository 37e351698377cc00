"""What Keras itself says about layers and operations: the one place of the code writer that asks it."""

import functools
import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

from hf2khc.diagnostics import fail
from hf2khc.ir import signatures
from hf2khc.ir.float64 import keras_on_torch
from hf2khc.ir.graph import Node

_NORMS = ("layers.LayerNormalization", "layers.RMSNormalization", "layers.BatchNormalization",
          "layers.GroupNormalization")  # fmt: skip
_NO_DEFAULT = inspect.Parameter.empty


@functools.lru_cache(maxsize=256)
def layer_type(op: str) -> Any:
    """The class behind `layers.X`.

    Raises:
        ConversionError: `unknown-layer`.
    """
    cls = signatures.layer(op.removeprefix("layers."))
    if cls is None:
        raise fail("unknown-layer", f"neither Keras nor KerasHub has a layer {op.removeprefix('layers.')}")
    return cls


def constructor_name(op: str) -> str:
    """A layer's class as generated code calls it; `hub_imports` makes the name known."""
    name = op.removeprefix("layers.")
    return f"keras.{op}" if signatures.is_of_keras(name) else name


def hub_imports(ops: Iterable[str]) -> list[str]:
    """Import lines of the layers of KerasHub among some ops."""
    names = {op.removeprefix("layers.") for op in ops if op.startswith("layers.")}
    return [f"from keras_hub.layers import {name}" for name in sorted(names) if not signatures.is_of_keras(name)]


@functools.lru_cache(maxsize=256)
def constructor_defaults(op: str) -> Mapping[str, object]:
    """Defaults of a layer's constructor by argument, `inspect.Parameter.empty` for a required one."""
    parameters = list(inspect.signature(layer_type(op)).parameters.values())
    named = {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD}
    return {**named, "name": None, "dtype": None, "trainable": True}


@functools.lru_cache(maxsize=256)
def call_arguments(op: str) -> tuple[str, ...]:
    """Names of the arguments of a layer's `call`."""
    return tuple(inspect.signature(layer_type(op).call).parameters)[1:]


def takes_training(op: str) -> bool:
    """Whether a layer behaves otherwise in training. Dense and its like take the argument for quantization alone."""
    return "training" in call_arguments(op) and not _is_quantizable(op)


def _is_quantizable(op: str) -> bool:
    base = keras_on_torch().layers.Layer
    return any("_int8_call" in vars(cls) for cls in layer_type(op).__mro__ if cls is not base)


def takes_list(op: str) -> bool:
    """Whether a layer takes its inputs as one list, as `Add` and `Concatenate` do."""
    return issubclass(layer_type(op), keras_on_torch().layers.Add.__bases__)


@functools.lru_cache(maxsize=512)
def op_parameters(op: str) -> tuple[tuple[str, object], ...]:
    """Parameters of `ops.X` in order, each with its default or `inspect.Parameter.empty`.

    Raises:
        ConversionError: `unknown-op`.
    """
    function = signatures.function(op)
    if function is None:
        raise fail("unknown-op", f"keras.ops has no {op.removeprefix('ops.')}")
    parameters = inspect.signature(function).parameters.values()
    return tuple((p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)


def takes_any_number(op: str) -> bool:
    """Whether the operands of `ops.X` are one argument each, however many there are."""
    function = signatures.function(op)
    parameters = inspect.signature(function).parameters.values() if function else ()
    return any(p.kind is p.VAR_POSITIONAL for p in parameters)


def is_required(default: object) -> bool:
    return default is _NO_DEFAULT


@functools.lru_cache(maxsize=1)
def reserved_attributes() -> frozenset[str]:
    """Attributes of layers and models that a generated class must not overwrite."""
    keras = keras_on_torch()
    from keras.src.models.functional import Functional  # what a model called on `keras.Input` turns into

    return frozenset(
        {*dir(keras.layers.Layer), *dir(keras.Model), *dir(Functional), *vars(keras.layers.Layer(name="probe"))}
    )


def built_axes(node: Node, rank: int) -> frozenset[int]:
    """The axes of its input that a layer looks at when it is built; all of them where that is not known."""
    if node.op == "layers.Embedding":
        return frozenset()
    if node.op == "layers.EinsumDense":
        given, kernel = str(node.attrs["equation"]).partition("->")[0].split(",")
        # An ellipsis stands for leading axes.
        return frozenset(rank - len(given) + i for i, letter in enumerate(given) if letter in kernel)
    if node.op in ("layers.Dense", *_NORMS):
        axes = node.attrs.get("axis", -1)
        return frozenset(a % rank for a in (axes if isinstance(axes, tuple) else (axes,)) if isinstance(a, int))
    if re.fullmatch(r"layers\.(Depthwise|Separable)?Conv[123]D(Transpose)?", node.op):
        return frozenset({1 if node.attrs.get("data_format") == "channels_first" else rank - 1})
    return frozenset(range(rank))


_variables: dict[tuple, tuple[str, ...]] = {}


def variable_names(op: str, attributes: Mapping[str, object], shapes: tuple[tuple[int, ...], ...]) -> tuple[str, ...]:
    """Paths of a layer's weights below the layer's own name, in the order of `layer.weights`.

    Args:
        op: `layers.X`.
        attributes: evaluated constructor arguments.
        shapes: shapes of the call's inputs; further ones are ignored.

    Raises:
        ConversionError: `layer-arguments`, where Keras does not accept them.
    """
    key = (op, repr(sorted(attributes.items())), shapes)
    if key not in _variables:
        _variables[key] = _built(op, attributes, shapes)
    return _variables[key]


def _built(op: str, attributes: Mapping[str, object], shapes: tuple[tuple[int, ...], ...]) -> tuple[str, ...]:
    if takes_list(op):
        return ()
    try:
        layer = layer_type(op)(**{**attributes, "name": "probe"})
        required = [p for p in inspect.signature(layer.build).parameters.values() if p.default is _NO_DEFAULT]
        layer.build(*shapes[: max(1, len(required))])
    except (TypeError, ValueError) as error:
        raise fail("layer-arguments", f"{op} does not accept {dict(attributes)}: {error}") from error
    names = (weight.path.removeprefix("probe/") for weight in layer.weights)
    return tuple(names)
