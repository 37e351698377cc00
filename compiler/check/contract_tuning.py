"""LoRA: on every query and value projection, trainable, and able to lower a loss."""

import inspect
import math
from typing import Any

import keras

from hf2khc.check.contract_dropout import dropout_layers
from hf2khc.check.contract_running import targets
from hf2khc.check.contract_subject import Subject
from hf2khc.check.contract_verdict import Broken, Skipped, require

RANK = 2
# Learning rates of the one step.
_RATES = (1e-3, 1e-4, 1e-5)
_PROJECTIONS = (keras.layers.EinsumDense, keras.layers.Dense)
# What a projection of an attention may be called; `enable_lora` looks for the first two roles under either name.
_ROLES = {role: {role, f"{role}_dense"} for role in ("query", "value", "key", "attention_output")}
_CALLS = ("dot_product_attention(", "ops.softmax(", "Softmax(")


def lora(subject: Subject) -> str:
    """`enable_lora` reaches the query and value projection of every attention, and one step lowers the loss."""
    model = subject.build()
    attentions = [layer for layer in model._flatten_layers(include_self=False) if _attends(layer)]
    if not attentions:
        raise Skipped("no layer attends")
    require(_unnamed(attentions), "projections that enable_lora does not find")
    names = model.default_lora_layer_names()
    projections = [child for layer in attentions for child in _children(layer) if child.name in names]
    model.enable_lora(RANK)
    reached = {id(layer) for layer in model._flatten_layers() if getattr(layer, "lora_enabled", False)}
    require((f"{layer.path}: no LoRA" for layer in projections if id(layer) not in reached), "LoRA is missing")
    if not reached:
        raise Broken("enable_lora reaches no layer")
    expected = sum(_size(layer) for layer in model._flatten_layers() if id(layer) in reached)
    trainable = sum(math.prod(w.shape) for w in model.trainable_weights)
    if trainable != expected:
        extra = [w.path for w in model.trainable_weights if "lora_kernel" not in w.path]
        raise Broken(f"{trainable} trainable parameters, LoRA of rank {RANK} and its biases have {expected}", extra)
    before, after = _trained(subject, model)
    if not after < before:
        raise Broken(f"training steps take the loss from {before:.6g} to {after:.6g}")
    return f"{len(reached)} projections, {trainable:,} trainable parameters, loss {before:.5g} to {after:.5g}"


def _children(layer: Any) -> list[Any]:
    return [child for child in layer._layers if isinstance(child, _PROJECTIONS)]


def _attends(layer: Any) -> bool:
    """Whether a layer computes an attention in its own call: a softmax over keys, or the op as a whole."""
    if type(layer).__module__.startswith(("keras.", "keras_hub.")):
        return isinstance(layer, keras.layers.MultiHeadAttention)
    source = inspect.getsource(type(layer))
    if _CALLS[0] in source:
        return True
    names = {child.name for child in _children(layer)}
    return any(call in source for call in _CALLS[1:]) and bool(names & {"query", "key", "value", "attention_output"})


def _unnamed(attentions: list[Any]) -> list[str]:
    """A role that no projection of a layer has, where one is left that may have it: keys and values may come from
    another layer."""
    faults = []
    for layer in attentions:
        names = {child.name for child in _children(layer)}
        other = names.difference(*_ROLES.values())
        lost = [role for role in ("query", "value") if not names & _ROLES[role] and other]
        faults += [f"{layer.path}: no projection named {role}, but {', '.join(sorted(other))}" for role in lost]
    return faults


def _size(layer: Any) -> int:
    """Trainable parameters of a projection with LoRA: two factors, and the bias, which stays trainable."""
    factors = math.prod(layer.lora_kernel_a.shape) + math.prod(layer.lora_kernel_b.shape)
    return factors + (math.prod(layer.bias.shape) if layer.bias is not None else 0)


def _trained(subject: Subject, model: Any) -> tuple[float, float]:
    """The loss before and after a step, without dropout, whose noise may turn the gradient.

    A model that picks its best boxes picks others after too large a step: then smaller ones are tried.
    """
    for layer in dropout_layers(model):
        layer.rate = 0.0
    inputs = subject.inputs()
    wanted = targets(model, inputs)
    jit = keras.backend.backend() != "torch"
    kept = [keras.ops.convert_to_numpy(weight.value) for weight in model.weights]
    before = after = math.nan
    for rate in _RATES:
        for weight, value in zip(model.weights, kept, strict=True):
            weight.assign(value)
        model.compile(optimizer=keras.optimizers.Adam(rate), loss="mse", jit_compile=jit)
        before = float(model.test_on_batch(inputs, wanted, return_dict=True)["loss"])
        model.train_on_batch(inputs, wanted)
        after = float(model.test_on_batch(inputs, wanted, return_dict=True)["loss"])
        if after < before:
            break
    return before, after
