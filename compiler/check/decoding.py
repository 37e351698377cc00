"""Token by token what a model gives at once: the logits of its cached step, under the Keras backend of this process."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

# Of a causal model, and of the decoder of one with an encoder; the step of each.
STEPS = {"token_ids": "call_with_cache", "decoder_token_ids": "call_decoder_with_cache"}


def decodes(model: Any, inputs: Mapping[str, np.ndarray]) -> bool:
    """Whether a model has a cached step, and may take these inputs in it: padding stands behind the tokens."""
    tokens = _tokens(model, inputs)
    if tokens is None:
        return False
    mask = inputs.get(tokens.replace("token_ids", "padding_mask"), np.ones((1, 1)))
    return bool((np.diff(mask, axis=1) <= 0).all())


def _tokens(model: Any, inputs: Mapping[str, np.ndarray]) -> str | None:
    return next((tokens for tokens, step in STEPS.items() if tokens in inputs and hasattr(model, step)), None)


def decoded(model: Any, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The logits of every position, the first half of them from the prompt and each of the others from a step.

    As in `generate`, the cache is made for the whole length, from a prompt that is filled up with zeros, or, where it
    keeps states, from as many tokens of it as there are.
    """
    name = _tokens(model, inputs)
    assert name is not None
    step, tokens = getattr(model, STEPS[name]), inputs[name]
    length = tokens.shape[1]
    half = max(1, length // 2)
    prompt = keras.ops.convert_to_tensor(np.where(np.arange(length) < half, tokens, 0).astype("int32"))
    cache, given, logits = _begun(model, step, inputs, prompt, half)
    found = [keras.ops.convert_to_numpy(logits)[:, :half]]
    for index in range(half, length):
        token = keras.ops.convert_to_tensor(tokens[:, index : index + 1])
        logits, _, cache = step(*given, token, cache, index)
        found.append(keras.ops.convert_to_numpy(logits))
    return np.concatenate(found, axis=1)


def _begun(
    model: Any, step: Any, inputs: Mapping[str, np.ndarray], prompt: Any, half: int
) -> tuple[Any, list[Any], Any]:
    """A cache with the first half of a prompt, what every step is given beside it, and the logits of that half."""
    build = model._build_cache
    if "length" in inspect.signature(build).parameters:
        # All tokens at once, and the same ones two by two.
        logits, _, _ = step(prompt[:, :half], build(prompt, 0), 0)
        return build(prompt, half, block_size=2), [], logits
    *carried, _, cache = build(*_given(build, inputs, ()), prompt)
    given = _given(step, inputs, carried)
    logits, _, cache = step(*given, prompt, cache, 0)
    return cache, given, logits


def _given(method: Any, inputs: Mapping[str, np.ndarray], carried: Sequence[Any]) -> list[Any]:
    """The arguments of a method before the tokens: what an encoder gave, and inputs of the model."""
    names = list(inspect.signature(method).parameters)
    before = names[len(carried) : next(i for i, name in enumerate(names) if name in STEPS)]
    return [*carried, *(keras.ops.convert_to_tensor(inputs[name]) for name in before)]
