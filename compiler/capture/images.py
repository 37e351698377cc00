"""The images that a model takes: what its config says about them, and what it leaves open."""

import copy
import inspect
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from hf2khc.capture.config_parts import first_field, part_with
from hf2khc.capture.input_types import Input

DEFAULT_IMAGE_SIZE = 224  # for models that take images of any size


def takes_images(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> bool:
    """Whether a model is captured with an image."""
    if model_class.main_input_name == "pixel_values":
        return True
    # A model that marks the places of an image in its text by a token also runs on text alone.
    marks = ("image_token_id", "image_token_index", "media_placeholder_token_id")
    separate = hasattr(config, "vision_config") and not any(getattr(config, m, None) is not None for m in marks)
    return separate and "pixel_values" in inspect.signature(model_class.forward).parameters


def with_image_size(config: PreTrainedConfig, model_class: type[PreTrainedModel]) -> PreTrainedConfig:
    """The config with a size of images, in a copy where it has none: a size like any other, that may differ."""
    if not takes_images(model_class, config) or _image_size(config):
        return config
    config = copy.deepcopy(config)
    _vision(config).image_size = DEFAULT_IMAGE_SIZE
    return config


def image_input(config: PreTrainedConfig) -> Input:
    """The input for images, channels first, of the size that the config says."""
    size = _image_size(config) or DEFAULT_IMAGE_SIZE
    if isinstance(size, dict):
        size = (size.get("height"), size.get("width"))
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    channels = first_field(_vision(config), "num_channels", "in_channels", "in_chans") or 3
    return Input("pixel_values", "float32", ("batch", channels, height, width), ("normal",))


def _image_size(config: PreTrainedConfig) -> Any:
    return first_field(_vision(config), "image_size", "input_size") or first_field(config, "image_size")


def _vision(config: PreTrainedConfig) -> PreTrainedConfig:
    return part_with(config, "vision_config", "encoder", "backbone_config")
