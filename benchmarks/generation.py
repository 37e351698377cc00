"""Generation side by side: a package, KerasHub's own class, and transformers, prefill and decode apart."""

import math
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.command import executable
from benchmarks.generation_speed import EAGER, KERAS_HUB, PACKAGE, STATIC
from benchmarks.job import JobFailed, run_job
from benchmarks.machine import busy, machine

BACKENDS = ("jax", "tensorflow", "torch")
BATCH, PROMPT, NEW, REPEATS = 4, 64, 64, 11
# Small enough that a class is measured in a minute, large enough that arithmetic counts.
_SIZES = {"vocab_size": 8192, "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8}
_ROTARY = {
    **_SIZES,
    "intermediate_size": 1536,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 512,
}
MODELS: Mapping[str, Mapping[str, Any]] = {
    "gpt2": {"vocab_size": 8192, "n_embd": 512, "n_layer": 8, "n_head": 8, "n_positions": 512},
    "llama": _ROTARY,
    "qwen3": _ROTARY,
    "gemma2": {**_ROTARY, "sliding_window": 32, "query_pre_attn_scalar": 64},
}


def generation(names: tuple[str, ...] = tuple(MODELS)) -> dict[str, Any]:
    """Tokens per second of every way, by model, way and backend."""
    rows = {name: _measured(name) for name in names}
    slower = [
        backend
        for row in rows.values()
        for backend in BACKENDS
        if not _as_fast(row[PACKAGE][backend], row[KERAS_HUB][backend])
    ]
    return {"aim": "decodes at least as fast as KerasHub's own class on every backend", "models": rows,
            "batch": BATCH, "prompt": PROMPT, "new": NEW, "command": "python -m benchmarks.run --only generation",
            "machine": machine(), "busy": busy(), "holds": not slower}  # fmt: skip


def _as_fast(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether the package is not slower: it is if it is behind in more turns than chance explains (a sign test, 5 %).

    Where both compute the same in as many operations, each is ahead in half of the turns.
    """
    if "failure" in theirs:
        return True
    turns, ahead = ours.get("turns", 0), ours.get("ahead", {}).get("decode", 0)
    as_few = sum(math.comb(turns, n) for n in range(ahead + 1)) / 2**turns
    return bool(turns) and as_few > 0.05


def _measured(name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="hf2khc-generation-") as folder:
        model, package = Path(folder, "model"), Path(folder, name)
        _save(name, MODELS[name], model)
        subprocess.run([*executable(), str(model), "-o", str(package), "--no-check", "--quiet"], check=True)
        ways: dict[str, dict[str, Any]] = {way: {} for way in (EAGER, STATIC, KERAS_HUB, PACKAGE)}
        for backend in BACKENDS:
            of_keras = {KERAS_HUB: str(model), PACKAGE: str(package)}
            directories = {EAGER: str(model), STATIC: str(model), **of_keras} if backend == "torch" else of_keras
            for way, spent in _spent(directories, backend).items():
                ways[way][backend] = spent
        return ways


def _save(name: str, overrides: Mapping[str, Any], directory: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(name, **overrides)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)


def _spent(directories: Mapping[str, str], backend: str) -> dict[str, Any]:
    job = {"ways": directories, "batch": BATCH, "prompt": PROMPT, "new": NEW, "vocabulary": 8192, "repeats": REPEATS}
    try:
        return run_job("benchmarks.generation_speed", job, backend)
    except JobFailed as error:
        return dict.fromkeys(directories, {"failure": str(error).strip().splitlines()[-1]})
