"""The weights of a template: tensors of a checkpoint that fit a variable by their name and their shape.

A tensor's name tells its part by words that many models share; the words are those of parts of a transformer, and no
word decides for a tensor whose shape does not fit.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hf2khc.weights.checkpoint import Checkpoint

# Last words of the module that owns a tensor, by the layer of the template that has this part.
_WORDS: Mapping[str, tuple[str, ...]] = {
    "token_embedding": ("word_embeddings", "embed_tokens", "tok_embeddings", "wte", "token_embedding", "embed_in"),
    "position_embedding": ("position_embeddings", "embed_positions", "wpe", "position_embedding"),
    "segment_embedding": ("token_type_embeddings", "segment_embedding"),
    "reverse_embeddings": ("lm_head", "embed_out", "output_projection"),
    "self_attention/query": ("query", "q_proj", "q_lin", "query_proj", "wq", "q"),
    "self_attention/key": ("key", "k_proj", "k_lin", "key_proj", "wk", "k"),
    "self_attention/value": ("value", "v_proj", "v_lin", "value_proj", "wv", "v"),
    "self_attention/attention_output": ("attention.output.dense", "o_proj", "out_proj", "out_lin", "wo", "o",
                                        "attn.c_proj", "attention.dense"),
    "feedforward_intermediate_dense": ("intermediate.dense", "fc1", "up_proj", "c_fc", "lin1", "fc_in",
                                       "dense_h_to_4h", "w1", "wi"),
    "feedforward_output_dense": ("output.dense", "fc2", "down_proj", "mlp.c_proj", "lin2", "fc_out", "dense_4h_to_h",
                                 "w2"),
    "self_attention_layer_norm": ("attention.output.LayerNorm", "input_layernorm", "ln_1", "self_attn_layer_norm",
                                  "sa_layer_norm", "attention_norm"),
    "feedforward_layer_norm": ("output.LayerNorm", "post_attention_layernorm", "ln_2", "final_layer_norm",
                               "output_layer_norm", "ffn_norm"),
    "embeddings_layer_norm": ("embeddings.LayerNorm", "layernorm_embedding", "embedding_layer_norm",
                              "embeddings.norm"),
    "layer_norm": ("norm", "ln_f", "final_layernorm", "final_layer_norm", "layer_norm"),
}  # fmt: skip
_VECTORS = {"bias": "bias", "beta": "bias", "gamma": "weight"}
_LAYER = re.compile(r"(?:^|\.)(\d+)\.")


def place(variables: Sequence[Any], checkpoint: Checkpoint) -> dict[str, str]:
    """Assigns to every variable the tensor that fits it; the others keep their initial values.

    Args:
        variables: of the template's model.
        checkpoint: the tensors.

    Returns:
        The tensor's name by the variable's path.
    """
    shapes = {name: checkpoint.shape(name) for name in checkpoint.names()}
    found: dict[str, str] = {}
    for variable in variables:
        for name in _candidates(variable.path, shapes):
            value = None if name in found.values() else _fitted(checkpoint.read(name), variable)
            if value is not None:
                variable.assign(value)
                found[variable.path] = name
                break
    return found


def _candidates(path: str, names: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """Tensors of this variable's part, in its layer, best words first."""
    part, leaf = _part(path)
    layer = re.search(r"_(\d+)(?:/|$)", path) if path.startswith("transformer_layer_") else None
    number = layer[1] if layer else None
    kind = _VECTORS.get(leaf, "weight")
    for word in _WORDS.get(part, ()):
        ending = re.compile(rf"(?:^|[._]){re.escape(word)}\.{kind}$")
        for name in names:
            inside = _LAYER.search(name)
            if (inside[1] if inside else None) == number and ending.search(name):
                yield name


def _part(path: str) -> tuple[str, str]:
    owner, _, leaf = path.rpartition("/")
    if leaf == "reverse_embeddings":
        return leaf, leaf
    # KerasHub's encoder and decoder give their attention two names.
    return re.sub(r"^transformer_layer_\d+/", "", owner).replace("attention_layer/", "attention/"), leaf


def _fitted(tensor: np.ndarray, variable: Any) -> np.ndarray | None:
    """The tensor in the variable's shape, or None where its shape is another.

    A matrix of transformers has its output first. Where both orders fit, it is taken to be one of those.
    """
    shape = tuple(int(size) for size in variable.shape)
    value = tensor.astype("float32")
    if variable.path.endswith("/kernel") and value.ndim == 2:
        # Attention splits the heads off its inputs' side in the last projection, off its outputs' side in the others.
        inner = math.prod(shape[:-1]) if variable.path.endswith("attention_output/kernel") else shape[0]
        matrix = (inner, math.prod(shape) // inner)
        value = value.T if value.T.shape == matrix else value
        return value.reshape(shape) if value.shape == matrix else None
    if variable.path.endswith("reverse_embeddings"):
        value = value.T
    if value.ndim > 1 or len(shape) == 1:
        return value if value.shape == shape else None
    return value.reshape(shape) if value.size == math.prod(shape) else None
