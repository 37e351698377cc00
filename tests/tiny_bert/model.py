"""The checkpoint, weight map and signature that belong to the `tiny_bert` package."""

import json
import shutil
from pathlib import Path

import numpy as np

from hf2khc.weights.checkpoint import Checkpoint
from hf2khc.weights.rows import NotConsumed, Origin, Row, WeightMap, bind_rows

SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
CONSTANTS = {"positions": np.arange(512)}
SIGNATURE = {
    "inputs": {
        "input_ids": {"name": "token_ids", "dtype": "int32", "shape": ["batch", "seq"]},
        "attention_mask": {
            "name": "padding_mask", "dtype": "int32", "shape": ["batch", "seq"], "default": "ones", "like": "token_ids",
        },
        "token_type_ids": {
            "name": "segment_ids", "dtype": "int32", "shape": ["batch", "seq"], "default": "zeros", "like": "token_ids",
        },
    },
    "outputs": {
        "last_hidden_state": {"name": "sequence_output", "shape": ["batch", "seq", 16], "dtype": "float32"},
        "pooler_output": {"name": "pooled_output", "shape": ["batch", 16], "dtype": "float32"},
    },
    "omitted": {},
}  # fmt: skip


def save_checkpoint(directory, **options):
    """A BERT with noise on every parameter, saved by transformers. Returns the model."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    model = BertModel(BertConfig(**SIZES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(directory, **options)
    return model


def write_package(directory, **config):
    """The package folder with `preset/config.json` and `signature.json`, still without weights."""
    shutil.copytree(Path(__file__).parent / "tiny_bert", directory / "tiny_bert")
    fields = {
        "vocabulary_size": 50, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 24, **config,
    }  # fmt: skip
    data = {
        "module": "tiny_bert", "class_name": "TinyBertBackbone", "registered_name": "tiny_bert>TinyBertBackbone",
        "config": fields,
    }  # fmt: skip
    (directory / "preset").mkdir()
    (directory / "preset" / "config.json").write_text(json.dumps(data))
    (directory / "signature.json").write_text(json.dumps(SIGNATURE))


def rows(hidden=16, middle=24, heads=2, layers=2, vocabulary=50):
    """Rows over transformers' parameter paths, before they are bound to a file."""
    shapes = {"d": hidden, "i": middle, "v": vocabulary, "p": 512, "s": 2, "h": heads, "k": hidden // heads}

    def row(keras, source, transform, shape):
        dims = tuple(shapes[c] for c in shape)
        return Row(keras, (source,), transform.format(**shapes), dims, "float32")

    found = [
        row("token_embedding/embeddings", "embeddings.word_embeddings.weight", "x", "vd"),
        row("segment_embedding/embeddings", "embeddings.token_type_embeddings.weight", "x", "sd"),
        row("positions/embeddings", "embeddings.position_embeddings.weight", "x", "pd"),
        Row("positions/positions", (), "x", (512,), "int32", constant="positions"),
        row("embeddings_norm/gamma", "embeddings.LayerNorm.weight", "x", "d"),
        row("embeddings_norm/beta", "embeddings.LayerNorm.bias", "x", "d"),
        row("pooler/kernel", "pooler.dense.weight", "transpose(x)", "dd"),
        row("pooler/bias", "pooler.dense.bias", "x", "d"),
    ]
    split = "reshape(transpose(x), ({d}, {h}, {k}))"
    for i in range(layers):
        a, b = f"transformer_layer_{i}", f"encoder.layer.{i}"
        for name in ("query", "key", "value"):
            found.append(row(f"{a}/{name}/kernel", f"{b}.attention.self.{name}.weight", split, "dhk"))
            found.append(row(f"{a}/{name}/bias", f"{b}.attention.self.{name}.bias", "reshape(x, ({h}, {k}))", "hk"))
        found += [
            row(f"{a}/attention_output/kernel", f"{b}.attention.output.dense.weight",
                "reshape(transpose(x), ({h}, {k}, {d}))", "hkd"),
            row(f"{a}/attention_output/bias", f"{b}.attention.output.dense.bias", "x", "d"),
            row(f"{a}/attention_norm/gamma", f"{b}.attention.output.LayerNorm.weight", "x", "d"),
            row(f"{a}/attention_norm/beta", f"{b}.attention.output.LayerNorm.bias", "x", "d"),
            row(f"{a}/intermediate/kernel", f"{b}.intermediate.dense.weight", "transpose(x)", "di"),
            row(f"{a}/intermediate/bias", f"{b}.intermediate.dense.bias", "x", "i"),
            row(f"{a}/output/kernel", f"{b}.output.dense.weight", "transpose(x)", "id"),
            row(f"{a}/output/bias", f"{b}.output.dense.bias", "x", "d"),
            row(f"{a}/output_norm/gamma", f"{b}.output.LayerNorm.weight", "x", "d"),
            row(f"{a}/output_norm/beta", f"{b}.output.LayerNorm.bias", "x", "d"),
        ]  # fmt: skip
    return tuple(found)


def weight_map(checkpoint_dir, unbound=None):
    """The rows bound to a checkpoint whose tensors are named as the model's parameters."""
    checkpoint = Checkpoint(checkpoint_dir)
    unbound = rows() if unbound is None else unbound
    origins = {source: Origin((source,)) for row in unbound for source in row.sources}
    return WeightMap(bind_rows(unbound, origins, checkpoint))


def without(weights, keras, reason):
    """A map without one row, whose tensor is listed as not consumed."""
    dropped = next(row for row in weights.rows if row.keras == keras)
    kept = tuple(row for row in weights.rows if row is not dropped)
    return WeightMap(kept, weights.aliases, tuple(NotConsumed(name, reason) for name in dropped.hf))
