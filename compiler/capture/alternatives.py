"""Other inputs that a model may take, where its config does not settle which: tried in shapes alone."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from hf2khc.capture.build import build_meta, configs, quiet
from hf2khc.capture.input_types import Input

FRAMES = ("num_frames", "frames_per_clip", "max_num_frames")
Spec = tuple[Input, ...]


def alternatives(model: PreTrainedModel, spec: Spec) -> Iterator[Spec]:
    """Specs in the order in which they are tried; the given one is the first.

    Args:
        model: of which the config counts.
        spec: as the config suggests.
    """
    yield spec
    for index, entry in enumerate(spec):
        for shape in _other_shapes(model, entry):
            yield (*spec[:index], replace(entry, shape=shape), *spec[index + 1 :])


def _other_shapes(model: PreTrainedModel, entry: Input) -> Iterator[tuple[int | str, ...]]:
    if entry.name == "input_values" and len(entry.shape) == 2:
        yield ("batch", 1, entry.shape[1])  # one channel
    if entry.name == "input_features" and len(entry.shape) == 3:
        yield ("batch", entry.shape[2], entry.shape[1])  # time last, or first
    if entry.name.startswith("pixel_values") and len(entry.shape) == 4:
        frames = (getattr(part, name, None) for part in configs(model.config) for name in FRAMES)
        for count in dict.fromkeys([*(n for n in frames if isinstance(n, int)), 2]):  # a film, or a pair of images
            yield ("batch", count, *entry.shape[1:])


def runs(model: PreTrainedModel, samples: Mapping[str, torch.Tensor]) -> bool:
    """Whether a forward pass gets through, or at least to where it asks for a number that is not there.

    Args:
        model: on any device.
        samples: inputs by name.
    """
    if any(parameter.device.type != "meta" for parameter in model.parameters()):
        model = build_meta(model.config, type(model))
    try:
        with quiet(), torch.no_grad():
            model(**{name: tensor.to("meta") for name, tensor in samples.items()})
    except Exception as error:
        # The shapes were right up to there.
        return "meta" in str(error)
    return True
