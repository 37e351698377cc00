"""A forward pass of a small model in numbers: what shapes alone do not show."""

from collections.abc import Collection, Mapping, Sequence

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from hf2khc.capture.build import build_meta, materialise, quiet
from hf2khc.capture.input_types import Example
from hf2khc.capture.inputs import input_spec, sample_inputs
from hf2khc.capture.truncate import truncate

MOST_PARAMETERS = 50_000_000


def trial_error(
    config: PreTrainedConfig, model_class: type[PreTrainedModel], examples: Sequence[Example],
    sizes: Mapping[str, int], whole: Collection[str],
) -> Exception | None:  # fmt: skip
    """What a forward pass with random weights raises; of a model too large for that, an `IndexError` that says so.

    Args:
        config: of the model.
        model_class: its class.
        examples: inputs that the user gave.
        sizes: of the symbols among the sizes of the inputs.
        whole: lists of layers that are run as they are; of others the fewest that show every kind.

    Raises:
        ConversionError: the model cannot be built.
    """
    model = build_meta(config, model_class)
    truncate(model, whole)
    if model.num_parameters() > MOST_PARAMETERS:
        return IndexError("too large to be tried")
    try:
        inputs = sample_inputs(input_spec(model, examples), dict(sizes))
        materialise(model)
        with quiet(), torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.02)
            model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    except Exception as error:  # a model's own code may fail in any way
        return error
    return None
