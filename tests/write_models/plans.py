"""Small programs at the keras level with the names a package gives them."""

import dataclasses
from pathlib import Path

import numpy as np

from hf2khc.ir.graph import callees_first
from hf2khc.ir.text import parse_program
from hf2khc.passes.keras.merge_sizes import merge_sizes
from hf2khc.write.plan import Field, Plan

FOLDER = Path(__file__).parent
TOKENS = {"input_ids": ("token_ids", "int32"), "attention_mask": ("padding_mask", "int32")}


def program(name: str):
    return parse_program((FOLDER / f"{name}.ir").read_text())


def llama() -> Plan:
    fields = (
        Field("config.vocab_size", "vocabulary_size", 50, "int. The size of the token vocabulary."),
        Field("config.num_hidden_layers", "num_layers", 3, "int. The number of decoder layers."),
        Field("config.num_attention_heads", "num_query_heads", 4, "int. The number of query heads of each layer."),
        Field("config.num_key_value_heads", "num_key_value_heads", 2, "int. The number of key and value heads."),
        Field("config.hidden_size", "hidden_dim", 24, "int. The size of the hidden states."),
        Field("config.intermediate_size", "intermediate_dim", 40, "int. The size of the feedforward layers."),
        Field("config.head_dim", "head_dim", 6, "int. The size of each attention head."),
        Field("config.rms_norm_eps", "layer_norm_epsilon", 1e-5, "float. Epsilon of the normalization layers."),
        Field("config.attention_dropout", "attention_dropout", 0.0, "float. Dropout of attention weights."),
        Field(
            "constant.rotary_emb.inv_freq", "inverse_frequencies", [1.0, 0.04641589, 0.00215443],
            "list of floats. The inverse frequencies of the rotary embedding.",
        ),
    )  # fmt: skip
    tiny = {
        "config.vocab_size": 11, "config.num_hidden_layers": 2, "config.num_attention_heads": 4,
        "config.num_key_value_heads": 2, "config.hidden_size": 8, "config.intermediate_size": 12, "config.head_dim": 4,
        "constant.rotary_emb.inv_freq": [1.0, 0.01],
    }  # fmt: skip
    outputs = ("sequence_output", "logits")
    origin = {"transformers class": "`LlamaModel`", "sizes": "3 layers, 4 heads, 24 hidden, 10 thousand parameters"}
    return Plan("llama", "Llama", program("llama"), fields, TOKENS, outputs, tiny, origin)


def mixed() -> Plan:
    """Llama with a second kind of layer, without the feedforward part, which a list of the config tells apart."""
    plan = llama()
    graphs = dict(plan.program.graphs)
    layer = graphs["LlamaDecoderLayer"]
    attended = layer[layer.outputs[0]].operands[0]
    graphs["LlamaDecoderLayerB"] = layer.replaced(name="LlamaDecoderLayerB", outputs=(attended,)).pruned()
    kinds = ("LlamaDecoderLayer", "LlamaDecoderLayerB", "LlamaDecoderLayer")
    main = plan.program.main
    nodes = [node.with_attrs(graph=kinds) if node.op == "loop" else node for node in main]
    graphs[main.name] = main.replaced(nodes)
    order = callees_first(graphs, main.name)
    program = dataclasses.replace(plan.program, graphs={name: graphs[name] for name in order})
    entries = Field("config.layer_types", "layer_types", ["full", "light", "full"], "list. The kind of each layer.")
    tiny = {**plan.tiny, "config.layer_types": ["full", "light"]}
    return dataclasses.replace(plan, package="mixed", program=program, fields=(*plan.fields, entries), tiny=tiny)


def bert() -> Plan:
    fields = (
        Field("config.vocab_size", "vocabulary_size", 30, "int. The size of the token vocabulary."),
        Field("config.num_hidden_layers", "num_layers", 4, "int. The number of transformer layers."),
        Field("config.num_attention_heads", "num_heads", 3, "int. The number of attention heads."),
        Field("config.hidden_size", "hidden_dim", 12, "int. The size of the hidden states."),
        Field("config.intermediate_size", "intermediate_dim", 20, "int. The size of the feedforward layers."),
        Field("config.hidden_act", "activation", "gelu", "string. The activation of the feedforward layers."),
        Field("config.layer_scale", "layer_scale", 0.25, "float. What every other layer is scaled by."),
        Field("config.hidden_dropout_prob", "dropout", 0.1, "float. Dropout probability."),
        Field("config.type_vocab_size", "num_segments", 2, "int. The number of segments."),
        Field("config.max_position_embeddings", "max_sequence_length", 16, "int. The maximum sequence length."),
    )
    tiny = {
        "config.vocab_size": 11, "config.num_hidden_layers": 3, "config.num_attention_heads": 2,
        "config.hidden_size": 8, "config.intermediate_size": 6,
    }  # fmt: skip
    inputs = {**TOKENS, "token_type_ids": ("segment_ids", "int32")}
    return Plan("bert", "Bert", program("bert"), fields, inputs, ("sequence_output", "pooled_output"), tiny)


def vit() -> Plan:
    fields = (
        Field("config.num_hidden_layers", "num_layers", 3, "int. How often the mixer is applied."),
        Field("config.hidden_size", "hidden_dim", 10, "int. The size of the hidden states."),
        Field("config.image_size", "image_size", 12, "int. The height and width of the images."),
        Field("config.patch_size", "patch_size", 4, "int. The height and width of the patches."),
        Field("config.num_channels", "num_channels", 3, "int. The number of channels of the images."),
        Field("config.layer_norm_eps", "layer_norm_epsilon", 1e-6, "float. Epsilon of the normalization layer."),
    )
    tiny = {"config.num_hidden_layers": 2, "config.hidden_size": 6, "config.image_size": 8}
    inputs = {"pixel_values": ("images", "float32")}
    return Plan("vit", "ViT", program("vit"), fields, inputs, ("sequence_output",), tiny)


def stages() -> Plan:
    """Two stages of one class, at sizes of their own."""
    fields = (
        Field("config.image_size", "image_size", 10, "int. The height and width of the images."),
        Field("config.widths", "widths", [6, 8], "list of ints. The number of filters of each stage."),
        Field("config.num_channels", "num_channels", 3, "int. The number of channels of the images."),
    )
    tiny = {"config.image_size": 7, "config.widths": [4, 6], "config.widths._0": 4, "config.widths._1": 6}
    inputs = {"pixel_values": ("images", "float32")}
    program_ = merge_sizes(program("stages"))
    return Plan("stages", "Net", program_, fields, inputs, ("sequence_output",), tiny)


def recurrent() -> Plan:
    """Two scans, one behind the other: of floats with a constant, and of integers."""
    fields = (
        Field("config.vocab_size", "vocabulary_size", 30, "int. The size of the token vocabulary."),
        Field("config.num_hidden_layers", "num_layers", 3, "int. The number of layers."),
        Field("config.hidden_size", "hidden_dim", 12, "int. The size of the hidden states."),
    )
    tiny = {"config.vocab_size": 11, "config.num_hidden_layers": 2, "config.hidden_size": 8}
    inputs = {"input_ids": TOKENS["input_ids"]}
    return Plan("recurrent", "Gated", program("recurrent"), fields, inputs, ("sequence_output",), tiny)


PLANS = {"llama": llama, "mixed": mixed, "bert": bert, "vit": vit, "stages": stages, "recurrent": recurrent}


def constants(plan: Plan) -> Plan:
    """The plan with its constants at this model's values, where the text holds those of another size."""
    values = {
        f.source.removeprefix("constant."): np.asarray(f.value, "float32")
        for f in plan.fields
        if f.source.startswith("constant.")
    }
    program = dataclasses.replace(plan.program, constants={**plan.program.constants, **values})
    return dataclasses.replace(plan, program=program)
