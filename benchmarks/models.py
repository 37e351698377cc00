"""The models that are measured, smallest first: what is handed to `hf2khc.convert`, as data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import minilm, rxnmapper

LM = "causal-lm"
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LLAMA_1B = {
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 8192,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_parameters": LLAMA3_ROPE,
    "tie_word_embeddings": True,
}
LLAMA_70B = {
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "intermediate_size": 28672,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {**LLAMA3_ROPE, "factor": 8.0},
}
QWEN3_06B = {
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    "tie_word_embeddings": True,
}
GEMMA2_2B_6_LAYERS = {
    "hidden_size": 2304,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "intermediate_size": 9216,
    "vocab_size": 256000,
    "sliding_window": 4096,
    "query_pre_attn_scalar": 256,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}


@dataclass(frozen=True)
class Benchmark:
    """One model to measure.

    Args:
        name: of the result file and for `ONLY=`.
        title: as the table prints it.
        model: model type at random weights; empty where `prepare` gives real ones.
        overrides: config fields on top of the type's defaults.
        task: that chooses the class; the base model of the type by default.
        prepare: makes a directory with real weights below the one it is given, and returns it.
    """

    name: str
    title: str
    model: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    task: str = ""
    prepare: Callable[[Path], Path] | None = None


MODELS = (
    Benchmark("rxnmapper", "ALBERT of rxnmapper, real weights", prepare=rxnmapper.prepare),
    Benchmark("minilm", "MiniLM L6, real weights", prepare=minilm.prepare),
    Benchmark("t5", "T5 small", "t5"),
    Benchmark("vit", "ViT base", "vit"),
    Benchmark("bert", "BERT base", "bert"),
    Benchmark("gpt2", "GPT-2 124M", "gpt2", task=LM),
    Benchmark("qwen3", "Qwen3 0.6B shape", "qwen3", QWEN3_06B, LM),
    Benchmark("gemma2", "Gemma 2 2B dimensions, 6 layers", "gemma2", GEMMA2_2B_6_LAYERS, LM),
    Benchmark("llama", "Llama 1B shape", "llama", LLAMA_1B, LM),
)


def find(name: str) -> Benchmark:
    """The benchmark of a name.

    Raises:
        SystemExit: there is none.
    """
    for benchmark in MODELS:
        if benchmark.name == name:
            return benchmark
    raise SystemExit(f"no benchmark {name!r}; there are {', '.join(b.name for b in MODELS)}")
