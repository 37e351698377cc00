"""How transformers generates with a model unless it is told otherwise: its generation config."""

from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from hf2khc.capture.source import Source

_FILE = "generation_config.json"
# What transformers takes where the config says nothing.
_TOP_K = 50


def generation_defaults(source: Source) -> dict[str, Any]:
    """The tokens that end a text, and the sampler, as `keras_hub.samplers.get` takes it.

    Args:
        source: the model; its own generation config counts, else what its config implies.
    """
    config = generation_config(source)
    ends = config.eos_token_id
    stop = [ends] if isinstance(ends, int) else [int(end) for end in ends or ()]
    return {"stop_token_ids": stop or None, "default_sampler": _sampler(config)}


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
