"""Which constructor arguments come first, and which have defaults."""

import re
from collections.abc import Iterable

from hf2khc.write.plan import Field

# The order of KerasHub's constructors.
_FIRST = (
    "vocabulary_size", "num_layers", "num_encoder_layers", "num_decoder_layers", "num_query_heads", "num_heads",
    "num_key_value_heads", "hidden_dim", "intermediate_dim", "head_dim",
)  # fmt: skip
_LAST = ("dropout", "max_sequence_length")
_DIMENSION = re.compile(r"(num_\w*(layers|heads|experts)|\w+_dim|vocabulary_size|image_shape|image_size|patch_size)")

# Of layers of which several differ in them.
_DOCS = {
    "filters": "int. The number of filters of the convolution.",
    "first_layer": "int. The index of the first layer.",
    "head_dim": "int. The size of each attention head.",
    "hidden_dim": "int. The size of the hidden states.",
    "image_size": "int. The height and width of the feature map.",
    "kernel_size": "int. The size of the convolution window.",
    "num_heads": "int. The number of attention heads.",
    "num_key_value_heads": "int. The number of key and value heads.",
    "num_layers": "int. The number of layers.",
    "pad_width": "int. The padding on each side.",
    "scale": "float. What attention scores are multiplied by.",
    "strides": "int. The stride of the convolution.",
    "units": "int. The size of the output of the dense layer.",
}


def parameter_doc(name: str) -> str:
    """What is said of a constructor argument that no field of the config stands behind."""
    return _DOCS.get(name, f"The `{name}` of this layer.")


def ordered(fields: Iterable[Field]) -> tuple[Field, ...]:
    """Fields in the order of a constructor: dimensions, other required ones, those with defaults, dropout last."""
    return tuple(sorted(fields, key=_key))


def has_default(field: Field) -> bool:
    """Whether a constructor argument has this model's value as its default.

    Dimensions have none, lists cannot, and graph parameters (value `None`, no config behind them) are always given.
    """
    if isinstance(field.value, list | tuple | dict) or not field.source.startswith("config."):
        return False
    return not (isinstance(field.value, int) and not isinstance(field.value, bool) and _DIMENSION.fullmatch(field.name))


def _key(field: Field) -> tuple:
    first = _FIRST.index(field.name) if field.name in _FIRST else len(_FIRST)
    last = _LAST.index(field.name) + 1 if field.name in _LAST else 0
    return (has_default(field), first, last)
