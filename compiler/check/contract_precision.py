"""Mixed precision: variables in float32, everything that flows between layers in the compute dtype."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from hf2khc.check.contract_subject import Subject, difference, outputs
from hf2khc.check.contract_verdict import Broken, require

POLICY = "mixed_bfloat16"
COMPUTE, VARIABLE = "bfloat16", "float32"
NOBODYS = "float16"


def mixed_precision(subject: Subject) -> str:
    """Under `mixed_bfloat16` every layer returns bfloat16, and the outputs are finite.

    What states its own dtype, as a recurrence does that stays in float32, keeps that. Keras's `ReversibleEmbedding`
    gives logits in the dtype of its kernel, float32, as in KerasHub's own models. A policy is one of layers: an output
    that no layer computes, such as the scale of a series, has the dtype of the input.
    """
    with _other_policy():
        model = subject.build(dtype=POLICY)
    inputs = subject.inputs()
    require(_other_policies(model), "layers do not take the policy")
    promoted: dict[str, str] = {}
    logits: dict[str, str] = {}
    for layer in model._flatten_layers(include_self=False):
        if not isinstance(layer, keras.layers.InputLayer):
            layer.call = _watched(layer, layer.call, promoted, logits)
    tensors = {name: keras.ops.convert_to_tensor(array) for name, array in inputs.items()}
    pairs = zip(keras.tree.flatten(model.output), keras.tree.flatten(model(tensors)), strict=True)
    values = [value for output, value in pairs if _is_of_layers(output)]
    require((f"{path}: returns {dtype}" for path, dtype in promoted.items()), "layers leave the compute dtype")
    allowed = {COMPUTE, *logits.values()}
    wrong = [v.dtype for v in values if _is_float(v) and keras.backend.standardize_dtype(v.dtype) not in allowed]
    if wrong:
        raise Broken(f"outputs are {wrong[0]}, not {COMPUTE}")
    return _error(subject, model, inputs)


def _is_of_layers(output: keras.KerasTensor) -> bool:
    """Whether a layer lies between a model's inputs and one of its outputs."""
    seen, found = set(), [output]
    while found:
        history = found.pop()._keras_history
        if isinstance(history.operation, keras.layers.Layer):
            if not isinstance(history.operation, keras.layers.InputLayer):
                return True
        elif history not in seen:
            seen.add(history)
            found += history.operation._inbound_nodes[history.node_index].input_tensors
    return False


@contextmanager
def _other_policy() -> Iterator[None]:
    """Within the block layers that are given no policy have one that nothing asks for."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(NOBODYS)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _other_policies(model: Any) -> list[str]:
    """Layers of another policy and weights of another dtype; one without weights may stay in float32."""
    faults = []
    for layer in model._flatten_layers(include_self=False):
        stays = not layer.weights and layer.dtype_policy.name == VARIABLE
        exempt = stays or isinstance(layer, keras.layers.InputLayer)
        if not exempt and (layer.compute_dtype, layer.variable_dtype) != (COMPUTE, VARIABLE):
            faults.append(f"{layer.path}: computes in {layer.compute_dtype}")
    faults += [f"{w.path}: is {w.dtype}" for w in model.weights if _is_float(w) and str(w.dtype) != VARIABLE]
    return faults


def _watched(
    layer: Any, call: Callable[..., Any], promoted: dict[str, str], logits: dict[str, str]
) -> Callable[..., Any]:
    """The layer's call, noting where it returns floating values of another dtype, and apart where it is reversed."""

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        value = call(*arguments, **keywords)
        noted = logits if keywords.get("reverse") else promoted
        for part in keras.tree.flatten(value):
            own = layer.compute_dtype
            if part is not None and _is_float(part) and keras.backend.standardize_dtype(part.dtype) != own:
                noted.setdefault(layer.path, keras.backend.standardize_dtype(part.dtype))
        return value

    return wrapped


def _is_float(value: Any) -> bool:
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype))


def _error(subject: Subject, mixed: Any, inputs: dict[str, np.ndarray]) -> str:
    found = outputs(mixed, inputs)
    if not all(np.isfinite(array).all() for array in found):
        raise Broken("outputs are not finite")
    return f"every layer returns {COMPUTE}; {difference(outputs(subject.model, inputs), found):.1e} from float32"
