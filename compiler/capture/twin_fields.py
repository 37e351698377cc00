"""The numbers in a config."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

# Numbers of tokens, ids of theirs, but not how many there are of a kind.
SKIPPED = re.compile(r"^_|token_id|token_index|^(?!num_)\w*_tokens?$|^dtype$|2label|label2|version")
DEPTH = re.compile(r"layers$|depths?$")
POSITIONS = re.compile(r"position|n_ctx|max_.*len|seq_?len|context_len|max_(source|target)")
LARGE = 16


@dataclass(frozen=True)
class Field:
    """One number (or list of numbers) in a config.

    Args:
        path: dotted path from the outermost config: `text_config.rope_parameters.rope_theta`.
        name: its last part, in the library's common vocabulary where the config maps its own name to it.
        part: path of the sub-config it belongs to.
        value: int, float, or list of ints.
    """

    path: str
    name: str
    part: str
    value: Any


def numeric_fields(config: PreTrainedConfig, part: str = "") -> Iterator[Field]:
    """All numbers that a twin may change: no switches (0, 1), no depths, no token ids."""
    common = {own: name for name, own in config.attribute_map.items()}
    depths = {config.attribute_map.get(name, name) for name in ("num_hidden_layers",)}
    for name, value in vars(config).items():
        path = f"{part}.{name}" if part else name
        if isinstance(value, PreTrainedConfig):
            yield from numeric_fields(value, path)
        elif not SKIPPED.search(name) and not _is_depth(name, value) and name not in depths:
            yield from _numbers(path, common.get(name, name), part, value)
    if len(getattr(config, "id2label", None) or ()) >= 2:
        yield Field(f"{part}.num_labels" if part else "num_labels", "num_labels", part, config.num_labels)


def _is_depth(name: str, value: Any) -> bool:
    return bool(DEPTH.search(name)) and not isinstance(value, float)


def _numbers(path: str, name: str, part: str, value: Any) -> Iterator[Field]:
    if isinstance(value, bool | str) or value is None:
        return
    if isinstance(value, dict):
        for key, entry in value.items():
            if isinstance(key, str):
                yield from _numbers(f"{path}.{key}", key, part, entry)
    elif (
        isinstance(value, int)
        and value >= 2
        or isinstance(value, float)
        and math.isfinite(value)
        and value not in (0.0, 1.0, -1.0)
    ):
        yield Field(path, name, part, value)
    elif isinstance(value, list | tuple) and value and all(type(v) is int and v >= LARGE for v in value):
        yield Field(path, name, part, list(value))


def get_field(config: Any, path: str) -> Any:
    """The value at a dotted path through configs, dictionaries and lists (`hidden_sizes._0`).

    What layers may have of their own is read as it stands for all of them: as an attribute such a config refuses it.
    """
    for name in path.split("."):
        if isinstance(config, list | tuple):
            config = config[int(name[1:])]
            continue
        values = config if isinstance(config, dict) else vars(config)
        config = values[name] if name in values else getattr(config, name)
    return config


def set_field(config: Any, path: str, value: Any) -> None:
    """Sets the value at a dotted path, in place."""
    owner, _, name = path.rpartition(".")
    target = get_field(config, owner) if owner else config
    if isinstance(target, dict):
        target[name] = value
    elif isinstance(target, list | tuple):
        place = int(name[1:])
        set_field(config, owner, [*target[:place], value, *target[place + 1 :]])
    else:
        # Some models add a tuple of theirs to it, or look it up.
        kept = isinstance(value, list) and isinstance(getattr(target, name, None), tuple)
        setattr(target, name, tuple(value) if kept else value)
