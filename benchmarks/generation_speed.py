"""Tokens per second of several ways to generate, greedily, in turns; a process for each backend.

python -m benchmarks.generation_speed JOB.json
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.job import serve

# The ways: transformers as it is and with a cache of a fixed size, KerasHub's own class, and the package.
EAGER, STATIC, KERAS_HUB, PACKAGE = "transformers", "transformers, static cache", "KerasHub", "package"
Generate = Callable[[np.ndarray, int], Any]


def speeds(job: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`prefill` and `decode` of every way, in tokens per second, or its `failure`; `_compared` adds to the package's.

    Prefill is what a prompt of all tokens but one takes for one more; decode is all else that a short prompt takes. A
    Keras model fills its cache over the whole length, transformers over the prompt alone. The ways take turns, so that
    a machine that slows down slows all of them; of the turns the median counts.

    Args:
        job: `ways` (the directory of each), `batch`, `prompt`, `new`, `vocabulary`, `repeats`.
    """
    shape = job["batch"], job["prompt"] + job["new"]
    tokens = np.random.default_rng(0).integers(3, job["vocabulary"], shape).astype("int32")
    runs: dict[str, Generate] = {}
    found: dict[str, dict[str, Any]] = {}
    for way, directory in job["ways"].items():
        try:
            runs[way] = _transformers(directory, way) if way in (EAGER, STATIC) else _keras(directory, way)
            _turn(way, runs[way], tokens, job["prompt"])  # compiles
        except Exception as error:  # whatever a class of another library raises is its result
            found[way] = {"failure": f"{type(error).__name__}: {error}".splitlines()[0]}
    ready = [way for way in runs if way not in found]
    turns: dict[str, list[tuple[float, float]]] = {way: [] for way in ready}
    for turn in range(job["repeats"]):
        for way in ready[:: -1 if turn % 2 else 1]:
            turns[way].append(_turn(way, runs[way], tokens, job["prompt"]))
    found |= {way: _rates(took, job) for way, took in turns.items()}
    if KERAS_HUB in turns and PACKAGE in turns:
        found[PACKAGE] |= _compared(turns[PACKAGE], turns[KERAS_HUB])
    return found


def _compared(ours: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> dict[str, Any]:
    """The package beside KerasHub's class: median `ratios` of two speeds in one turn, `ahead` in how many `turns`."""
    pairs = [[b / a for a, b in zip(*turn, strict=True)] for turn in zip(ours, theirs, strict=True)]
    columns = dict(zip(("prefill", "decode"), zip(*pairs, strict=True), strict=True))
    ahead = {what: sum(ratio > 1 for ratio in ratios) for what, ratios in columns.items()}
    return {"ratios": {what: median(ratios) for what, ratios in columns.items()}, "ahead": ahead, "turns": len(pairs)}


def _rates(turns: list[tuple[float, float]], job: Mapping[str, Any]) -> dict[str, float]:
    prefill, decode = (median(seconds) for seconds in zip(*turns, strict=True))
    batch, new = job["batch"], job["new"]
    return {"prefill": batch * (job["prompt"] + new) / prefill, "decode": batch * (new - 1) / decode}


def _turn(way: str, generate: Generate, tokens: np.ndarray, prompt: int) -> tuple[float, float]:
    """Seconds for one token behind all others, and for those behind a prompt but the first."""
    length = tokens.shape[1]
    prefill = _seconds(generate, tokens[:, :-1], length)
    first = _seconds(generate, tokens[:, :prompt], prompt + 1) if way in (EAGER, STATIC) else prefill
    return prefill, _seconds(generate, tokens[:, :prompt], length) - first


def _seconds(generate: Generate, tokens: np.ndarray, length: int) -> float:
    began = time.perf_counter()
    generate(tokens, length)
    return time.perf_counter() - began


def _transformers(directory: str, way: str) -> Generate:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    cache = {"cache_implementation": "static"} if way == STATIC else {}

    def generate(tokens: np.ndarray, length: int) -> Any:
        prompt = torch.from_numpy(tokens.astype("int64"))
        with torch.no_grad():
            return model.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=length - tokens.shape[1],
                do_sample=False, eos_token_id=None, pad_token_id=0, use_cache=True, **cache,
            )  # fmt: skip

    return generate


def _keras(directory: str, way: str) -> Generate:
    if way == KERAS_HUB:
        import keras_hub

        model = keras_hub.models.CausalLM.from_preset(directory, preprocessor=None)
    else:
        from hf2khc.package import import_package, load_preset

        import_package(Path(directory))
        model = load_preset(Path(directory))
    model.compile(sampler="greedy")

    def generate(tokens: np.ndarray, length: int) -> Any:
        padded = np.zeros((tokens.shape[0], length), "int32")
        padded[:, : tokens.shape[1]] = tokens
        mask = (np.arange(length) < tokens.shape[1]).astype("int32") * np.ones_like(padded)
        return model.generate({"token_ids": padded, "padding_mask": mask}, stop_token_ids=None)

    return generate


if __name__ == "__main__":
    serve(speeds)
