"""How transformers generates with a model unless it is told otherwise: its generation config."""

from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from hf2khc.capture.source import Source

_FILE = "generation_config.json"
# What transformers takes where the config says nothing.
_TOP_K = 50
# Settings that a package keeps.
_KEPT = frozenset({
    "do_sample", "temperature", "top_k", "top_p", "eos_token_id", "pad_token_id", "bos_token_id",
    "decoder_start_token_id",
})  # fmt: skip
# Settings of how long, how fast, and what is returned: none of them is a matter of the next token.
_SILENT = frozenset({
    "max_length", "max_new_tokens", "max_time", "use_cache", "cache_implementation", "cache_config", "max_cache_len",
    "renormalize_logits", "remove_invalid_values", "output_attentions", "output_hidden_states", "output_scores",
    "output_logits", "return_dict_in_generate", "is_assistant", "num_assistant_tokens", "assistant_early_exit",
    "num_assistant_tokens_schedule", "assistant_confidence_threshold", "prompt_lookup_num_tokens",
    "max_matching_ngram_size", "assistant_lookbehind", "target_lookbehind", "assistant_ensemble_weight",
    "speculation_type", "use_mtp", "compile_config", "disable_compile", "continuous_batching_config", "low_memory",
    "prefill_chunk_size", "transformers_version",
})  # fmt: skip
_SAMPLING = frozenset({"min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"})
_BEAMS = frozenset({"early_stopping", "length_penalty", "diversity_penalty"})


def generation_defaults(source: Source) -> dict[str, Any]:
    """The tokens that end a text, and the sampler, as `keras_hub.samplers.get` takes it.

    Args:
        source: the model; its own generation config counts, else what its config implies.
    """
    config = generation_config(source)
    ends = config.eos_token_id
    stop = [ends] if isinstance(ends, int) else [int(end) for end in ends or ()]
    return {"stop_token_ids": stop or None, "default_sampler": _sampler(config)}


def left_out(source: Source) -> dict[str, Any]:
    """What the generation config says of the next token and a package does not do, by setting."""
    config = generation_config(source)
    # The answers of an encoder-decoder begin with it, as the preprocessor packs them.
    begins = {"forced_bos_token_id"} if source.config.is_encoder_decoder else set()
    unused = (set() if config.do_sample else _SAMPLING) | (set() if (config.num_beams or 1) > 1 else _BEAMS)
    usual = GenerationConfig._get_default_generation_params()
    return {
        name: value for name in sorted(vars(GenerationConfig()).keys() - _KEPT - _SILENT - begins - unused)
        if not name.startswith("_") and (value := getattr(config, name, None)) not in (None, usual.get(name))
    }  # fmt: skip


def generation_config(source: Source) -> GenerationConfig:
    """The generation config of a model: its own, or what its config implies."""
    if source.live is not None and getattr(source.live, "generation_config", None) is not None:
        return source.live.generation_config
    if source.directory is not None and Path(source.directory, _FILE).is_file():
        return GenerationConfig.from_pretrained(str(source.directory))
    return GenerationConfig.from_model_config(source.config)


def _sampler(config: GenerationConfig) -> Any:
    if not config.do_sample:
        return "greedy"
    options = {"temperature": config.temperature if config.temperature is not None else 1.0}
    top_k = _TOP_K if config.top_k is None else config.top_k
    if config.top_p is not None and config.top_p < 1.0:
        return _named("TopPSampler", {"p": config.top_p, "k": top_k or None, **options})
    return _named("TopKSampler", {"k": top_k, **options}) if top_k else _named("RandomSampler", options)


def _named(name: str, options: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": f"keras_hub>{name}", "config": options}
