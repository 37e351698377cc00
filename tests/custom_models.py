"""A model whose forward pass a test writes itself, and a config for it."""

import transformers
from torch import nn

SMALL = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 40}


class Custom(transformers.PreTrainedModel):
    """An embedding, for subclasses to use."""

    config_class = transformers.BertConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(40, 8)
        self.post_init()
