"""Outputs of a model at its default flags that a package does not have: caches."""

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from hf2khc.capture.build import build_meta, materialise, quiet
from hf2khc.capture.inputs import Input, sample_inputs

REASON = "a cache of earlier positions; the package computes whole sequences"


def omitted_outputs(
    config: PreTrainedConfig, model_class: type[PreTrainedModel], spec: tuple[Input, ...], sizes: dict[str, int]
) -> dict[str, str]:
    """The outputs that a model adds where its config lets it use caches, with the reason why the package has none.

    Args:
        config: of a small model, with the flags of the real one.
        model_class: its class.
        spec: its inputs.
        sizes: values of the size symbols.

    Returns:
        reason by key of the ModelOutput.
    """
    without, with_caches = (
        _keys(materialise(build_meta(config, model_class, caches=caches)), spec, sizes) for caches in (False, True)
    )
    return dict.fromkeys(sorted(with_caches - without), REASON)


def _keys(model: PreTrainedModel, spec: tuple[Input, ...], sizes: dict[str, int]) -> set[str]:
    inputs = {name: torch.from_numpy(array) for name, array in sample_inputs(spec, sizes).items()}
    with torch.no_grad(), quiet():
        outputs = model(**inputs)
    return {key for key, value in outputs.items() if value is not None}
