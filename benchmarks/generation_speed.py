"""Tokens per second of one way to generate, greedily, after a warm-up; a process for each measurement.

python -m benchmarks.generation_speed JOB.json
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.job import serve

# The ways: transformers as it is and with a cache of a fixed size, KerasHub's own class, and the package.
EAGER, STATIC, KERAS_HUB, PACKAGE = "transformers", "transformers, static cache", "KerasHub", "package"
Generate = Callable[[np.ndarray, int], Any]


def speed(job: dict[str, Any]) -> dict[str, float]:
    """`prefill` and `decode`, in tokens per second.

    Prefill is what a prompt of all tokens but one takes for one more; decode is all else that a short prompt takes. A
    Keras model fills its cache over the whole length, transformers over the prompt alone.

    Args:
        job: `way`, `directory`, `batch`, `prompt`, `new`, `vocabulary`, `repeats`.
    """
    torch_way = job["way"] in (EAGER, STATIC)
    generate = _transformers(job) if torch_way else _keras(job)
    batch, prompt, length = job["batch"], job["prompt"], job["prompt"] + job["new"]
    tokens = np.random.default_rng(0).integers(3, job["vocabulary"], (batch, length)).astype("int32")
    prefill = _seconds(generate, tokens[:, :-1], length, job["repeats"])
    first = _seconds(generate, tokens[:, :prompt], prompt + 1, job["repeats"]) if torch_way else prefill
    whole = _seconds(generate, tokens[:, :prompt], length, job["repeats"])
    return {"prefill": batch * length / prefill, "decode": batch * (job["new"] - 1) / (whole - first)}


def _seconds(generate: Generate, tokens: np.ndarray, length: int, repeats: int) -> float:
    """The shortest of several runs behind one that compiles."""
    generate(tokens, length)
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        generate(tokens, length)
        found.append(time.perf_counter() - began)
    return min(found)


def _transformers(job: dict[str, Any]) -> Generate:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(job["directory"]).eval()
    cache = {"cache_implementation": "static"} if job["way"] == STATIC else {}

    def generate(tokens: np.ndarray, length: int) -> Any:
        prompt = torch.from_numpy(tokens.astype("int64"))
        with torch.no_grad():
            return model.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=length - tokens.shape[1],
                do_sample=False, eos_token_id=None, pad_token_id=0, use_cache=True, **cache,
            )  # fmt: skip

    return generate


def _keras(job: dict[str, Any]) -> Generate:
    if job["way"] == KERAS_HUB:
        import keras_hub

        model = keras_hub.models.CausalLM.from_preset(job["directory"], preprocessor=None)
    else:
        from hf2khc.package import import_package, load_preset

        import_package(Path(job["directory"]))
        model = load_preset(Path(job["directory"]))
    model.compile(sampler="greedy")

    def generate(tokens: np.ndarray, length: int) -> Any:
        padded = np.zeros((tokens.shape[0], length), "int32")
        padded[:, : tokens.shape[1]] = tokens
        mask = (np.arange(length) < tokens.shape[1]).astype("int32") * np.ones_like(padded)
        return model.generate({"token_ids": padded, "padding_mask": mask}, stop_token_ids=None)

    return generate


if __name__ == "__main__":
    serve(speed)
