"""Small configs of very different architectures. No two sizes that mean different things are equal."""

from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertModel,
    Gemma2Config,
    Gemma2Model,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    PreTrainedConfig,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5Model,
    ViTConfig,
    ViTModel,
)

TOKENS = {"vocab_size": 61, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def gpt2(**changes) -> GPT2Config:
    return GPT2Config(**{**TOKENS, "n_positions": 48, "n_embd": 40, "n_layer": 3, "n_head": 4, **changes})


def bert(**changes) -> BertConfig:
    sizes = {"hidden_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 52}
    return BertConfig(**{**TOKENS, **sizes, "max_position_embeddings": 48, **changes})


def llama(**changes) -> LlamaConfig:
    sizes = {"hidden_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaConfig(**{**TOKENS, **sizes, "intermediate_size": 52, "max_position_embeddings": 48, **changes})


def qwen3(**changes) -> Qwen3Config:
    sizes = {"hidden_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
    rest = {"head_dim": 14, "intermediate_size": 52, "max_position_embeddings": 48}
    return Qwen3Config(**{**TOKENS, **sizes, **rest, **changes})


def gemma2(**changes) -> Gemma2Config:
    sizes = {"hidden_size": 40, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
    rest = {"head_dim": 14, "intermediate_size": 52, "max_position_embeddings": 48, "query_pre_attn_scalar": 18}
    return Gemma2Config(**{**TOKENS, **sizes, **rest, "sliding_window": 5, **changes})


def vit(**changes) -> ViTConfig:
    sizes = {"hidden_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 52}
    return ViTConfig(**{**sizes, "image_size": 18, "patch_size": 6, **changes})


def t5(**changes) -> T5Config:
    sizes = {"d_model": 40, "d_kv": 14, "d_ff": 52, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4}
    rest = {"relative_attention_num_buckets": 12, "relative_attention_max_distance": 30, "decoder_start_token_id": 0}
    return T5Config(vocab_size=61, eos_token_id=2, pad_token_id=0, **{**sizes, **rest, **changes})


def albert(**changes) -> AlbertConfig:
    sizes = {"hidden_size": 40, "embedding_size": 22, "num_hidden_layers": 3, "num_attention_heads": 4}
    return AlbertConfig(**{**TOKENS, **sizes, "intermediate_size": 52, "max_position_embeddings": 48, **changes})


MODELS: dict[str, tuple[PreTrainedConfig, type]] = {
    "gpt2": (gpt2(), GPT2Model),
    "bert": (bert(), BertModel),
    "llama": (llama(), LlamaModel),
    "qwen3": (qwen3(), Qwen3Model),
    "gemma2": (gemma2(), Gemma2Model),
    "vit": (vit(), ViTModel),
    "t5": (t5(), T5Model),
    "albert": (albert(), AlbertModel),
    "gpt2_lm_head": (gpt2(), GPT2LMHeadModel),
}
