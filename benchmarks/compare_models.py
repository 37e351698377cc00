"""The models on which the static way is compared with the compiler, as data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks import minilm, rxnmapper
from benchmarks.models import LLAMA3_ROPE, LM, Benchmark

# Small everywhere: what is compared does not depend on the size.
WORDS = {"vocab_size": 512, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SMALL = {**WORDS, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
         "max_position_embeddings": 128}  # fmt: skip
GROUPED = {**SMALL, "num_key_value_heads": 2}
GPT2 = {"vocab_size": 512, "bos_token_id": 1, "eos_token_id": 2, "n_positions": 128, "n_embd": 64, "n_layer": 2,
        "n_head": 4}  # fmt: skip
# Its config.json also has an n_ctx of 1024, which transformers no longer reads.
DIALOGPT = {"n_positions": 1024, "n_embd": 1024, "n_layer": 24, "n_head": 16, "vocab_size": 50257}
VIT = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96, "image_size": 32,
       "patch_size": 8}  # fmt: skip
T5 = {"vocab_size": 512, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4}


@dataclass(frozen=True)
class Case(Benchmark):
    """One model to compare the ways on.

    Args:
        kind: `model`, `variant` (of a model above it) or `zoo`.
    """

    kind: str = "model"


def _variant(name: str, title: str, model: str, base: Mapping[str, Any], task: str = "", **changes: Any) -> Case:
    return Case(name, title, model, {**base, **changes}, task, kind="variant")


CASES = (
    Case("gpt2", "GPT-2", "gpt2", GPT2, LM),
    Case("bert", "BERT", "bert", SMALL),
    Case("llama", "Llama", "llama", GROUPED, LM),
    Case("qwen3", "Qwen3", "qwen3", {**GROUPED, "head_dim": 16}, LM),
    Case("gemma2", "Gemma 2", "gemma2", {**GROUPED, "head_dim": 16, "sliding_window": 8}, LM),
    Case("vit", "ViT", "vit", VIT),
    Case("t5", "T5", "t5", T5),
    _variant("gpt2_epsilon", "GPT-2, epsilon 1e-3", "gpt2", GPT2, LM, layer_norm_epsilon=1e-3),
    _variant("gpt2_activation", "GPT-2, activation relu", "gpt2", GPT2, LM, activation_function="relu"),
    _variant("gpt2_inner", "GPT-2, feedforward width 96", "gpt2", GPT2, LM, n_inner=96),
    _variant("bert_epsilon", "BERT, epsilon 1e-3", "bert", SMALL, layer_norm_eps=1e-3),
    _variant("bert_activation", "BERT, activation silu", "bert", SMALL, hidden_act="silu"),
    _variant("llama_rope", "Llama, rope type llama3", "llama", GROUPED, LM, rope_parameters=LLAMA3_ROPE),
    _variant("llama_biases", "Llama, biases in the attention", "llama", GROUPED, LM, attention_bias=True),
    _variant("llama_head_dim", "Llama, head_dim 24", "llama", GROUPED, LM, head_dim=24),
    _variant("gemma2_window", "Gemma 2, every layer with a window", "gemma2",
             {**GROUPED, "head_dim": 16, "sliding_window": 8}, LM,
             layer_types=["sliding_attention", "sliding_attention"]),
    Case("electra", "ELECTRA", "electra", {**SMALL, "embedding_size": 64}, kind="zoo"),
    Case("opt", "OPT", "opt", {"vocab_size": 512, "hidden_size": 64, "word_embed_proj_dim": 64, "ffn_dim": 96,
         "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128}, LM, kind="zoo"),
    Case("olmo2", "OLMo 2", "olmo2", GROUPED, LM, kind="zoo"),
    Case("gpt_neox", "GPT-NeoX", "gpt_neox", SMALL, LM, kind="zoo"),
    Case("cohere", "Cohere", "cohere", GROUPED, LM, kind="zoo"),
    Case("bloom", "BLOOM", "bloom", {"vocab_size": 512, "hidden_size": 64, "n_layer": 2, "n_head": 4}, LM,
         kind="zoo"),
    Case("minilm", "MiniLM L6, real weights", prepare=minilm.prepare),
    Case("rxnmapper", "ALBERT of rxnmapper, real weights", prepare=rxnmapper.prepare),
    Case("dialogpt_medium", "DialoGPT-medium shape", "gpt2", DIALOGPT, LM),
)  # fmt: skip
