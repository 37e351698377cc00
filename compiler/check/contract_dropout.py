"""Dropout: every rate of the config reaches a layer, and every such layer drops in training and only there."""

from collections.abc import Callable
from typing import Any

import keras

from hf2khc.check.contract_subject import Subject, difference, outputs
from hf2khc.check.contract_verdict import Broken, Skipped, require


def dropout(subject: Subject) -> str:
    """The rates are the config's, training is random through every dropout layer, inference is not.

    A package that does not follow its config, and says so in its report, may have a rate as a number.
    """
    model, inputs = subject.build(), subject.inputs()
    # Defaults are arguments as well as what the test gives.
    rates = {name: value for name, value in model.get_config().items() if "dropout" in name}
    layers = dropout_layers(model)
    taken = {layer.rate for layer in layers}
    lost = {name: rate for name, rate in rates.items() if rate and rate not in taken}
    require((f"{name}={rate}: no layer has this rate" for name, rate in lost.items()), "a rate of the config is lost")
    fixed = [layer for layer in layers if layer.rate not in rates.values()] if subject.follows else []
    require((f"{layer.path}: rate {layer.rate} is no argument" for layer in fixed), "a rate does not follow the config")
    if difference(outputs(model, inputs, training=False), outputs(model, inputs, training=False)) > 0:
        raise Broken("inference is random")
    active = [layer for layer in layers if layer.rate > 0]
    if not active:
        raise Skipped("the model has no dropout" if not layers else "every rate is 0")
    seen: set[int] = set()
    for layer in active:
        layer.call = _watched(layer, layer.call, seen)
    if difference(outputs(model, inputs, training=True), outputs(model, inputs, training=True)) == 0:
        raise Broken("two calls with training=True give the same outputs")
    idle = [layer.path for layer in active if id(layer) not in seen]
    require((f"{path}: not called with training=True" for path in idle), "dropout is not active in training")
    return f"{len(active)} layers active, rates {', '.join(f'{rate:g}' for rate in sorted({d.rate for d in active}))}"


def dropout_layers(model: Any) -> list[Any]:
    """Every dropout layer of a model, however deep."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Dropout)]


def _watched(layer: Any, call: Callable[..., Any], seen: set[int]) -> Callable[..., Any]:
    def wrapped(inputs: Any, training: bool = False) -> Any:
        if training:
            seen.add(id(layer))
        return call(inputs, training=training)

    return wrapped
