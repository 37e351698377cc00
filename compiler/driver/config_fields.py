"""The numbers of a config, by dotted field."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Lists up to this length have entries that are fields.
MOST_ENTRIES = 8
# Names of classes, by number and the reverse: of their numbers a model has but the count, `num_labels`.
LABELS = ("id2label", "label2id")


def flat_fields(config: "PreTrainedConfig") -> dict[str, object]:
    """Every plain value of a config by dotted field (`text_config.hidden_size`), entries of dictionaries included.

    Numbers in a short list, one per stage of a model say, go by their place as well (`hidden_sizes._0`).
    """
    return dict(_flat(config.to_dict(), ""))


def integer_fields(config: "PreTrainedConfig") -> Iterator[tuple[str, int]]:
    """The integers among them."""
    for field, value in flat_fields(config).items():
        if isinstance(value, int) and not isinstance(value, bool):
            yield field, value


def common_fields(configs: Sequence["PreTrainedConfig"]) -> dict[str, tuple[Any, ...]]:
    """`config.FIELD` to its values in several configs, for the fields all have."""
    flat = [flat_fields(config) for config in configs]
    shared = [name for name in flat[0] if all(name in values for values in flat)]
    return {f"config.{name}": tuple(values[name] for values in flat) for name in shared}


def _numbers(value: object) -> Sequence[int | float]:
    """The entries of a list of numbers, of few enough that each may mean something of its own."""
    if not isinstance(value, list | tuple) or len(value) > MOST_ENTRIES:
        return ()
    return value if all(isinstance(v, int | float) and not isinstance(v, bool) for v in value) else ()


def _flat(values: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if not str(name).isidentifier() or name in LABELS:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield prefix + name, value
            yield from ((f"{prefix}{name}._{i}", entry) for i, entry in enumerate(_numbers(value)))
    if not prefix and isinstance(values.get("id2label"), Mapping):
        yield "num_labels", len(values["id2label"])  # type: ignore[arg-type]
