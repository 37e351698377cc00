"""Quantization: int8 in every layer that can hold it, and no kernel outside such layers."""

from typing import Any

import keras
import numpy as np

from hf2khc.check.contract_factors import factors
from hf2khc.check.contract_subject import Subject, difference, outputs
from hf2khc.check.contract_verdict import Broken, Skipped, require

# What Keras quantizes: it asks for the exact class.
_QUANTIZED = (keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Embedding, keras.layers.ReversibleEmbedding)


def quantization(subject: Subject) -> str:
    """`quantize("int8")` touches every projection and embedding, and the outputs stay finite."""
    model, inputs = subject.build(), subject.inputs()
    require(_raw_kernels(model), "kernels outside Keras's own layers are never quantized")
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, _QUANTIZED)]
    if not layers:
        raise Skipped("no layer can be quantized")
    exact = outputs(model, inputs)
    require((f"{layer.path}: a {type(layer).__name__}" for layer in layers if type(layer) not in _QUANTIZED),
            "subclasses are never quantized")  # fmt: skip
    model.quantize("int8")
    require((f"{layer.path}: not quantized" for layer in layers if layer.quantization_mode != "int8"),
            "quantize passes over layers")  # fmt: skip
    found = outputs(model, inputs)
    if not all(np.isfinite(array).all() for array in found):
        raise Broken("outputs are not finite")
    return f"all {len(layers)} projections and embeddings; {difference(exact, found):.1e} from float32"


def _raw_kernels(model: Any) -> list[str]:
    """Factors of products with more than one axis of size above 1 that a layer of the package owns itself."""
    faults = []
    for layer in model._flatten_layers(include_self=False):
        if not type(layer).__module__.startswith(("keras.", "keras_hub.")):
            own = [(name, w) for name, w in _weights(layer).items() if sum(size > 1 for size in w.shape) > 1]
            names = factors(layer) if own else set()
            faults += [f"{w.path}: shape {tuple(w.shape)}" for name, w in own if name in names]
    return faults


def _weights(layer: Any) -> dict[str, Any]:
    """The floating weights that a layer owns itself, by attribute."""
    own = {id(w) for w in (*layer._trainable_variables, *layer._non_trainable_variables) if "float" in w.dtype}
    return {name: value for name, value in vars(layer).items() if id(value) in own}
