"""Token by token what a model gives at once: the logits of its cached step, under the Keras backend of this process."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

TOKENS, MASK = "token_ids", "padding_mask"


def decodes(model: Any, inputs: Mapping[str, np.ndarray]) -> bool:
    """Whether a model has a cached step, and may take these inputs in it: padding stands behind the tokens."""
    if not hasattr(model, "call_with_cache") or not set(inputs) <= {TOKENS, MASK}:
        return False
    mask = inputs.get(MASK, np.ones((1, 1)))
    return bool((np.diff(mask, axis=1) <= 0).all())


def decoded(model: Any, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The logits of every position, the first half of them from the prompt and each of the others from a step.

    As in `generate`, the cache is made for the whole length, from a prompt that is filled up with zeros.
    """
    tokens = inputs[TOKENS]
    length = tokens.shape[1]
    half = max(1, length // 2)
    prompt = keras.ops.convert_to_tensor(np.where(np.arange(length) < half, tokens, 0).astype("int32"))
    _, cache = model._build_cache(prompt)
    logits, _, cache = model.call_with_cache(prompt, cache, 0)
    found = [keras.ops.convert_to_numpy(logits)[:, :half]]
    for index in range(half, length):
        token = keras.ops.convert_to_tensor(tokens[:, index : index + 1])
        logits, _, cache = model.call_with_cache(token, cache, index)
        found.append(keras.ops.convert_to_numpy(logits))
    return np.concatenate(found, axis=1)
