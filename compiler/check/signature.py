"""`signature.json`: how inputs and outputs of transformers map to those of the package."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hf2khc.diagnostics import ConversionError, Diagnostic, fail

Inputs = dict[str, np.ndarray]
_FILL: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ones": np.ones_like,
    "zeros": np.zeros_like,
    "arange": lambda like: np.broadcast_to(np.arange(like.shape[-1]), like.shape),
}


def package_inputs(signature: Mapping[str, Any], inputs: Inputs) -> Inputs:
    """transformers' keyword arguments turned into the package's inputs.

    Args:
        signature: the content of `signature.json`.
        inputs: arrays by transformers' names.

    Raises:
        ConversionError: `signature`, for an input it does not know, or lacks without a default.
    """
    held = signature.get("held", {})
    problems = [f"{name}: not in the signature" for name in inputs if name not in {*signature["inputs"], *held}]
    problems += [
        f"{name}: the package is made for other numbers"
        for name, value in held.items()
        if name in inputs and not np.array_equal(inputs[name], value)
    ]
    mapped: Inputs = {}
    for name, entry in signature["inputs"].items():
        if name in inputs:
            array = np.transpose(inputs[name], entry["permute"]) if "permute" in entry else inputs[name]
            mapped[entry["name"]] = np.ascontiguousarray(array, dtype=entry["dtype"])
    for name, entry in signature["inputs"].items():
        if name in inputs:
            continue
        if entry.get("default") not in _FILL or entry.get("like") not in mapped:
            problems.append(f"{name}: not given, and its default cannot be made")
        else:
            filled = _FILL[entry["default"]](mapped[entry["like"]])
            mapped[entry["name"]] = np.ascontiguousarray(filled, dtype=entry["dtype"])
    if problems:
        message = "the inputs do not fit signature.json"
        raise ConversionError(Diagnostic("signature", message, excerpt="\n".join(problems)))
    return mapped


def package_outputs(signature: Mapping[str, Any], value: Any) -> Inputs:
    """The package's result by transformers' output keys; what the package does not return is left out.

    Args:
        signature: the content of `signature.json`.
        value: an array, or a flat dict of arrays by the package's names.

    Raises:
        ConversionError: `signature`, when the package returns something the signature does not name.
    """
    entries = signature["outputs"]
    if not isinstance(value, Mapping):
        if len(entries) != 1:
            raise fail("signature", f"the package returns one tensor, the signature has {len(entries)} outputs")
        return {next(iter(entries)): np.asarray(value)}
    named = {entry["name"] for entry in entries.values()}
    if set(value) - named:
        raise fail("signature", f"outputs that the signature does not name: {', '.join(sorted(set(value) - named))}")
    return {key: np.asarray(value[entry["name"]]) for key, entry in entries.items() if entry["name"] in value}


def fits(shape: Sequence[int], declared: Sequence[int | None]) -> bool:
    """Whether a result has the shape that a model declares, where None is any size."""
    return len(shape) == len(declared) and all(n in (size, None) for size, n in zip(shape, declared, strict=True))


def in_package_order(entry: Mapping[str, Any], array: np.ndarray) -> np.ndarray:
    """An output of transformers with its axes in the package's order."""
    return np.transpose(array, entry["permute"]) if "permute" in entry else array


def compared_rows(
    signature: Mapping[str, Any], entry: Mapping[str, Any], inputs: Inputs, shape: tuple[int, ...]
) -> np.ndarray:
    """Which elements of an output are compared: those in rows whose mask is 1 (bool, the output's shape).

    A mask of shape (batch, s) bears on an output that has both symbols among its axes.
    """
    chosen = np.ones(shape, bool)
    axes = list(entry["shape"])
    for name, item in signature["inputs"].items():
        if not is_mask(name, item) or name not in inputs or not all(symbol in axes for symbol in item["shape"]):
            continue
        order = [axes.index(symbol) for symbol in item["shape"]]
        if [shape[axis] for axis in order] != list(inputs[name].shape):
            raise fail("signature", f"{name} has shape {inputs[name].shape}, the output {shape} with axes {axes}")
        spread = [1] * len(shape)
        for axis, size in zip(order, inputs[name].shape, strict=True):
            spread[axis] = size
        ordered = np.transpose(inputs[name], np.argsort(order))
        chosen &= ordered.reshape(spread).astype(bool)
    return chosen


def is_mask(name: str, entry: Mapping[str, Any]) -> bool:
    """Whether an input says which positions are real: 1 everywhere unless given, one number per batch and position."""
    return name.endswith("mask") and len(entry["shape"]) == 2 and entry.get("default", "ones") == "ones"
