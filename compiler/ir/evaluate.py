"""Evaluators of the Keras dialects: `ops.*` and `layers.*` are Keras itself, `hub.*` their definitions."""

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf2khc.diagnostics import fail
from hf2khc.ir import hub
from hf2khc.ir.float64 import float64, keras_on_torch
from hf2khc.ir.graph import Node
from hf2khc.ir.interpret import Evaluator
from hf2khc.ir.signatures import bind_call, function, layer, slot_names

# Constructor arguments of every Keras layer, behind `**kwargs` in most signatures.
_BASE_LAYER = frozenset({"activity_regularizer", "autocast", "dtype", "name", "trainable"})


def keras_evaluators() -> dict[str, Evaluator]:
    """Evaluators of `ops`, `layers` and `hub`, in float64; values are torch tensors, numpy arrays are taken too."""
    return {"ops": _evaluate_op, "layers": _Layers(), "hub": _evaluate_hub}


def hub_function(op: str):
    """The definition of a `hub.*` op; `None` if there is none."""
    found = getattr(hub, op.removeprefix("hub."), None)
    public = inspect.isfunction(found) and found.__module__ == hub.__name__ and not op.startswith("hub._")
    return found if public else None


@dataclass(frozen=True)
class LayerArguments:
    """What a `layers.*` op takes.

    An attribute is an argument of the constructor where that names it, else of the call (`reverse` of
    `ReversibleEmbedding`).
    """

    layer: Any
    constructor: frozenset[str]
    call: frozenset[str]


@functools.cache
def layer_arguments(op: str) -> LayerArguments | None:
    """The class, constructor and call arguments of a `layers.*` op; `None` if Keras has no such layer."""
    found: Any = layer(op.partition(".")[2])
    if not _is_layer(found):
        return None
    constructor = frozenset(_named(found)) | _BASE_LAYER
    return LayerArguments(found, constructor, frozenset(_named(found.call)) - constructor)


def _is_layer(found) -> bool:
    return isinstance(found, type) and issubclass(found, keras_on_torch().layers.Layer)


def _named(function) -> list[str]:
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind not in variable and p.name != "self"]


def _evaluate_op(node: Node, operands: list, attrs: dict[str, object], env: Mapping[str, object]):
    called = function(node.op)
    if called is None:
        raise fail("unknown-op", f"Keras has no {node.op}")
    slots = slot_names(node.op)
    if slots:
        _bound(slots, operands, attrs)
    with float64():
        args, kwargs = bind_call(node.op, [_wide(operand) for operand in operands], attrs)
        return _plain(called(*args, **kwargs))


def _evaluate_hub(node: Node, operands: list, attrs: dict[str, object], env: Mapping[str, object]):
    definition = hub_function(node.op)
    if definition is None:
        raise fail("unknown-op", f"there is no {node.op}")
    with float64():
        names = tuple(inspect.signature(definition).parameters)
        return _plain(definition(**_bound(names, [_wide(operand) for operand in operands], attrs)))


def _bound(names: tuple[str, ...], operands: list, attrs: dict[str, object]) -> dict[str, object]:
    """Arguments by name: operands are the leading ones, an absent one is left to an attribute or the default."""
    if len(operands) > len(names):
        raise TypeError(f"{len(operands)} operands for the parameters {', '.join(names)}")
    given = {name: operand for name, operand in zip(names, operands, strict=False) if operand is not None}
    twice = given.keys() & attrs.keys()
    if twice:
        raise TypeError(f"{', '.join(sorted(twice))} given as an operand and as an attribute")
    return {**given, **attrs}


class _Layers:
    """Evaluates `layers.*`; one layer is built per op, attributes and shapes, its weights are set at every call."""

    def __init__(self):
        self._built = functools.lru_cache(maxsize=256)(_built)

    def __call__(self, node: Node, operands: list, attrs: dict[str, object], env: Mapping[str, object]):
        taken = layer_arguments(node.op)
        if taken is None:
            raise fail("unknown-op", f"Keras has no {node.op}")
        with float64():
            values = [_wide(operand) for operand in operands]
            keys = tuple(None if v is None else (tuple(v.shape), str(v.dtype)) for v in values)
            layer, inputs = self._built(node.op, tuple(attrs.items()), tuple(map(type, attrs.values())), keys)
            for variable, value in zip(layer.weights, values[inputs:], strict=True):
                variable.assign(value)
            return _plain(_call_layer(layer, values[:inputs], taken, attrs))


def _built(op: str, attributes: tuple, types: tuple, keys: tuple) -> tuple:
    """A built layer and how many of the operands are its inputs: the number that leaves one operand per weight.

    `types` tell apart attributes that are equal but not the same, 1 and True.
    """
    keras = keras_on_torch()
    taken, attrs = layer_arguments(op), dict(attributes)
    assert taken is not None
    errors = []
    for inputs in range(1, len(keys) + 1):
        zeros = [None if k is None else keras.ops.zeros(k[0], dtype=k[1].removeprefix("torch.")) for k in keys[:inputs]]
        layer = taken.layer(**{k: v for k, v in attrs.items() if k not in taken.call})
        try:
            _call_layer(layer, zeros, taken, attrs)
        except (TypeError, ValueError, IndexError) as error:
            errors.append(f"with {inputs} inputs: {error}")
            continue
        if inputs + len(layer.weights) == len(keys):
            return layer, inputs
        errors.append(f"with {inputs} inputs it has {len(layer.weights)} weights")
    raise fail("layer-operands", f"{op} does not take {len(keys)} operands", hint="\n".join(errors))


def _call_layer(layer, inputs: list, taken: LayerArguments, attrs: Mapping[str, object]):
    kwargs = {k: v for k, v in attrs.items() if k in taken.call}
    if "training" in inspect.signature(layer.call).parameters:
        kwargs["training"] = False
    return layer(inputs, **kwargs) if _merges(layer) else layer(*inputs, **kwargs)


def _merges(layer) -> bool:
    """Whether a layer takes its inputs as one list."""
    return isinstance(layer, keras_on_torch().layers.Add.__bases__)


def _wide(value):
    """An operand as Keras takes it on torch, inside `float64()`: 32-bit floats become float64."""
    if value is None:
        return None
    keras = keras_on_torch()
    return keras.ops.convert_to_tensor(value, dtype=keras.backend.standardize_dtype(value.dtype))


def _plain(value):
    return tuple(value) if isinstance(value, list) else value
