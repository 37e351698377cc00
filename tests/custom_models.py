"""A model whose forward pass a test writes itself, and a config for it."""

import torch
import transformers
from torch import nn

from hf2khc.capture.build import build_meta, materialise
from hf2khc.capture.export import export
from hf2khc.capture.inputs import input_spec, trace_sizes
from hf2khc.capture.truncate import truncate

SMALL = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 40}


class Custom(transformers.PreTrainedModel):
    """An embedding, for subclasses to use."""

    config_class = transformers.BertConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(40, 8)
        self.post_init()


def captured(model_class, config):
    """A model without weights, its inputs and its trace."""
    model = build_meta(config, model_class)
    truncate(model)
    materialise(model)
    spec = input_spec(model)
    return model, spec, export(model, spec, trace_sizes(model, spec))


def random_model(model_class):
    """A model of the small config with random weights."""
    model = materialise(build_meta(transformers.BertConfig(**SMALL), model_class))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


def exported(model_class):
    """A model with random weights and its trace."""
    model = random_model(model_class)
    spec = input_spec(model)
    return model, export(model, spec, trace_sizes(model, spec))
