"""signature.json of a package that no trace was made for: names and shapes of a Keras model, read off it."""

from collections.abc import Mapping
from typing import Any

import keras

from hf2khc.passes.keras.vocabulary import INPUT_NAMES, OUTPUT_NAMES

_CHANNELS_LAST = [0, 2, 3, 1]
_FILLS = {"padding_mask": "ones", "segment_ids": "zeros"}


def static_signature(model: Any) -> dict[str, Any]:
    """The content of signature.json; transformers' names are guessed from KerasHub's.

    Args:
        model: a backbone or a task, functional.
    """
    inputs = model.input if isinstance(model.input, Mapping) else {model.input.name: model.input}
    theirs = {name: source for source, name in INPUT_NAMES.items()}
    return {
        "inputs": {theirs.get(name, name): _input(name, tensor, inputs) for name, tensor in inputs.items()},
        "outputs": _outputs(model),
        "omitted": {},
    }


def _input(name: str, tensor: Any, others: Mapping[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name, "dtype": keras.backend.standardize_dtype(tensor.dtype)}
    axes = ["batch", *(f"axis_{i}" if size is None else size for i, size in enumerate(tensor.shape) if i)]
    if len(axes) == 2 and axes[1] == "axis_1":
        axes[1] = "seq"
    entry["shape"] = axes
    if len(axes) == 4 and keras.config.image_data_format() == "channels_last":
        # transformers' images have their channels first; the shape is written in the order of its own arrays.
        entry |= {"permute": _CHANNELS_LAST, "shape": [axes[i] for i in (0, 3, 1, 2)]}
    like = next((other for other, value in others.items() if other != name and value.shape == tensor.shape), None)
    if name in _FILLS and like is not None:
        entry |= {"default": _FILLS[name], "like": like}
    return entry


def _outputs(model: Any) -> dict[str, Any]:
    if not isinstance(model.output, Mapping):
        path = "logits" if hasattr(model, "backbone") else "last_hidden_state"
        return {path: _output(path, model.output)}
    theirs = {name: source for source, name in OUTPUT_NAMES.items()}
    return {str(theirs.get(name, name)): _output(str(name), tensor) for name, tensor in model.output.items()}


def _output(name: str, tensor: Any) -> dict[str, Any]:
    free = {0: "batch", 1: "seq"}
    axes = [free.get(i, f"axis_{i}") if size is None else size for i, size in enumerate(tensor.shape)]
    return {"name": name, "dtype": keras.backend.standardize_dtype(tensor.dtype), "shape": axes}
