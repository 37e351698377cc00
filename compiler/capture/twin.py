"""A small config of the same structure in which every number differs: what agrees in both is no coincidence."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from hf2khc.capture.input_types import Example, Input
from hf2khc.capture.twin_alike import Alike, keep_what_is_alike
from hf2khc.capture.twin_fields import get_field, numeric_fields
from hf2khc.capture.twin_search import Search
from hf2khc.capture.twin_values import Proposer


@dataclass
class Twin:
    """A twin and how it came about.

    Args:
        config: the twin's config.
        changed: old and new value by dotted field.
        unchanged: by dotted field, why it keeps its value.
        delicate: fields whose first new value gave another program.
        whole: lists of layers that the model does not let be cut.
    """

    config: PreTrainedConfig
    changed: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    unchanged: dict[str, str] = field(default_factory=dict)
    delicate: frozenset[str] = frozenset()
    whole: frozenset[str] = frozenset()


def twin_config(
    config: PreTrainedConfig,
    model_class: type[PreTrainedModel],
    spec: tuple[Input, ...],
    examples: Sequence[Example] = (),
    kept: Collection[str] = (),
    alike: Alike | None = None,
    apart: PreTrainedConfig | None = None,
) -> Twin:
    """A config that differs from `config` in every number it can and gives the same structure.

    The same structure means: the same modules, the same parameter names and the same kinds of layers after truncation,
    the same inputs, and a forward pass that runs. Depths, strings, switches and token ids below the new vocabulary
    stay. Changes that the model does not accept together are tried in ever smaller groups.

    Args:
        config: config of the real model.
        model_class: class of the real model.
        spec: inputs of the real model.
        examples: inputs that the user gave.
        kept: dotted fields that stay as they are.
        alike: asked of what has the same structure, and which lists of layers are whole, for what building and running
            a model does not show; costly.
        apart: another config that a field does not come back to where it can go elsewhere.
    """
    search = Search(config, model_class, tuple(entry.name for entry in spec), examples)
    values = {} if apart is None else {field.path: field.value for field in numeric_fields(apart)}
    groups = Proposer([field for field in numeric_fields(config) if field.path not in kept], values).groups()
    search.settle(groups)
    if alike is not None:
        keep_what_is_alike(search, groups, alike)
    search.keep_what_fails()
    return _result(search)


def _result(search: Search) -> Twin:
    config = search.laid_over({})
    changed = {path: (get_field(search.config, path), get_field(config, path)) for path in search.accepted}
    unchanged = {path: reason for path, reason in search.unchanged.items() if path not in changed}
    return Twin(config, changed, unchanged, search.delicate, search.whole)
