"""What transformers' own tables say about a model before it is built."""

from transformers import PreTrainedConfig
from transformers.models.auto import modeling_auto


def is_causal_lm(model_class: type) -> bool:
    """Whether a class is listed as a causal language model."""
    return model_class.__name__ in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()


def is_decoder(config: PreTrainedConfig) -> bool:
    """Whether a model type is listed for causal language modeling and not for filling in masked tokens."""
    kind = config.model_type
    causal, masked = (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )  # fmt: skip
    return bool(getattr(config, "is_decoder", False)) or (kind in causal and kind not in masked)
