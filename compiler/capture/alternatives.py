"""Other inputs that a model may take, where its config does not settle which: tried in shapes alone."""

import inspect
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from hf2khc.capture.build import build_meta, configs, quiet
from hf2khc.capture.input_types import Input

FRAMES = ("num_frames", "frames_per_clip", "max_num_frames")
SOUNDS = ("input_values", "input_features")
MASKS = ("attention_mask", "padding_mask", "feature_attention_mask")
Spec = tuple[Input, ...]


def alternatives(model: PreTrainedModel, spec: Spec) -> Iterator[Spec]:
    """Specs in the order in which they are tried; the given one is the first.

    Args:
        model: of which the config counts.
        spec: as the config suggests.
    """
    # No shape changes which inputs there are.
    accepted = inspect.signature(model.forward).parameters.keys() - {entry.name for entry in spec}
    for shaped in (spec, *_shaped(model, spec)):
        yield shaped
        yield from ((*shaped, mask) for entry in shaped for mask in sound_masks(entry, accepted))


def sound_masks(entry: Input, accepted: Collection[str]) -> Iterator[Input]:
    """The masks over the time of a sound that a model takes: most do without, and some compute its length from one.

    Args:
        entry: any input; one that is no sound has none.
        accepted: names of the arguments.
    """
    if entry.name not in SOUNDS:
        return
    free = [size for size in entry.shape[1:] if isinstance(size, str)]
    # Of two numbers that of the features of a frame is the smaller one.
    time = free[0] if free else max(size for size in entry.shape[1:] if isinstance(size, int))
    for name in (f"{entry.name}_mask", *MASKS):
        if name in accepted:
            yield Input(name, "int64", ("batch", time), ("ones",), "mask")


def _shaped(model: PreTrainedModel, spec: Spec) -> Iterator[Spec]:
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
