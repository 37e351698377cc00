"""Words: transformers' names to KerasHub's. They only choose names, never what is computed."""

import re
from collections.abc import Mapping

LAYER_NAMES: Mapping[str, str] = {
    "wte": "token_embedding",
    "embed_tokens": "token_embedding",
    "word_embeddings": "token_embedding",
    "shared": "token_embedding",
    "wpe": "position_embedding",
    "position_embeddings": "position_embedding",
    "token_type_embeddings": "segment_embedding",
    "self_attn": "self_attention",
    "attn": "self_attention",
    "ln_f": "layer_norm",
    "norm": "layer_norm",
    "final_layernorm": "layer_norm",
}

# Names that say nothing without their owner's.
GENERIC_NAMES = frozenset({"dense", "proj", "linear", "fc", "layer", "weight"})

FIELD_NAMES: Mapping[str, str] = {
    "vocab_size": "vocabulary_size",
    "num_hidden_layers": "num_layers",
    "n_layer": "num_layers",
    "num_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "n_head": "num_heads",
    "num_key_value_heads": "num_key_value_heads",
    "hidden_size": "hidden_dim",
    "n_embd": "hidden_dim",
    "d_model": "hidden_dim",
    "intermediate_size": "intermediate_dim",
    "n_inner": "intermediate_dim",
    "d_ff": "intermediate_dim",
    "d_kv": "head_dim",
    "head_dim": "head_dim",
    "embedding_size": "embedding_dim",
    "max_position_embeddings": "max_sequence_length",
    "n_positions": "max_sequence_length",
    "n_ctx": "max_sequence_length",
    "type_vocab_size": "num_segments",
    "layer_norm_eps": "layer_norm_epsilon",
    "layer_norm_epsilon": "layer_norm_epsilon",
    "rms_norm_eps": "layer_norm_epsilon",
    "hidden_dropout_prob": "dropout",
    "resid_pdrop": "dropout",
    "dropout_rate": "dropout",
    "hidden_dropout": "dropout",
    "embd_pdrop": "embedding_dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "attn_pdrop": "attention_dropout",
    "rope_theta": "rope_max_wavelength",
    "sliding_window": "sliding_window_size",
    "attn_logit_softcapping": "attention_logit_soft_cap",
    "final_logit_softcapping": "final_logit_soft_cap",
    "num_local_experts": "num_experts",
    "num_experts_per_tok": "top_k",
    "num_labels": "num_classes",
}

# What a decoder is given, whatever its encoder takes.
DECODER_TOKENS = "decoder_input_ids"

INPUT_NAMES: Mapping[str, str] = {
    "input_ids": "token_ids",
    "attention_mask": "padding_mask",
    "token_type_ids": "segment_ids",
    DECODER_TOKENS: "decoder_token_ids",
    "decoder_attention_mask": "decoder_padding_mask",
    "pixel_values": "images",
}

ENCODER_INPUT_NAMES: Mapping[str, str] = {"input_ids": "encoder_token_ids", "attention_mask": "encoder_padding_mask"}

OUTPUT_NAMES: Mapping[str, str] = {"last_hidden_state": "sequence_output", "pooler_output": "pooled_output"}

ENCODER_OUTPUT_NAMES: Mapping[str, str] = {
    "last_hidden_state": "decoder_sequence_output",
    "encoder_last_hidden_state": "encoder_sequence_output",
}


def snake(name: object) -> str:
    """`LayerNormalization` as `layer_normalization`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", str(name)).lower()
