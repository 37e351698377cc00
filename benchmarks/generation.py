"""Generation side by side: a package, KerasHub's own class, and transformers, prefill and decode apart."""

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
BATCH, PROMPT, NEW, REPEATS = 4, 64, 64, 3
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
    return "failure" in theirs or ours.get("decode", 0.0) >= theirs["decode"]


def _measured(name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="hf2khc-generation-") as folder:
        model, package = Path(folder, "model"), Path(folder, name)
        _save(name, MODELS[name], model)
        subprocess.run([*executable(), str(model), "-o", str(package), "--no-check", "--quiet"], check=True)
        ways: dict[str, Any] = {way: {"torch": _spent(way, model, "torch")} for way in (EAGER, STATIC)}
        for way, directory in ((KERAS_HUB, model), (PACKAGE, package)):
            ways[way] = {backend: _spent(way, directory, backend) for backend in BACKENDS}
        return ways


def _save(name: str, overrides: Mapping[str, Any], directory: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(name, **overrides)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)


def _spent(way: str, directory: Path, backend: str) -> dict[str, Any]:
    job = {"way": way, "directory": str(directory), "batch": BATCH, "prompt": PROMPT, "new": NEW}
    try:
        return run_job("benchmarks.generation_speed", {**job, "vocabulary": 8192, "repeats": REPEATS}, backend)
    except JobFailed as error:
        return {"failure": str(error).strip().splitlines()[-1]}
