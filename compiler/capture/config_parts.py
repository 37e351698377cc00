"""Where in a config a thing is said: the part that it belongs to, and the one of several names that it goes by."""

from typing import Any

from transformers import PreTrainedConfig


def part_with(config: PreTrainedConfig, *names: str) -> PreTrainedConfig:
    """The first of these parts that a config has, else the config itself."""
    found = (getattr(config, name, None) for name in names)
    return next((part for part in found if isinstance(part, PreTrainedConfig)), config)


def first_field(config: PreTrainedConfig, *names: str) -> Any:
    """The value of the first of these fields that says something; `None` where none does."""
    return next((getattr(config, name) for name in names if getattr(config, name, None)), None)
