"""What a capture holds beside the traced operations: constants, weights that are written, lists of layers."""

import torch
import transformers
from custom_models import SMALL, Custom
from torch import nn

from hf2khc.capture.frontend import capture
from hf2khc.capture.twin import twin_config
from hf2khc.capture.whole_lists import whole_lists
from hf2khc.ir.text import format_program


class Constants(Custom):
    """Two equal lists in the code, and two equal buffers, of a kind of numbers that NumPy lacks."""

    def __init__(self, config):
        super().__init__(config)
        for name in ("a", "b"):
            self.register_buffer(name, torch.tensor(1.3, dtype=torch.bfloat16), persistent=False)
        self.post_init()

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        return hidden[..., [4, 1]] * self.a + hidden[..., [4, 1]].square() * self.b

    def _init_weights(self, module):
        for name in ("a", "b") if module is self else ():
            getattr(self, name).fill_(1.3)


class Rescaling(Custom):
    """As RWKV does before its first step."""

    def forward(self, input_ids):
        with torch.no_grad():
            self.embed.weight.div_(2)
        return self.embed(input_ids)


class ByNumber(Custom):
    """As MarkupLM is: one list is reached for by number, as often as a field says, and the other is run through."""

    def __init__(self, config):
        super().__init__(config)
        self.tables = nn.ModuleList(nn.Linear(8, 8) for _ in range(config.num_attention_heads))
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(config.num_hidden_layers))
        self.post_init()

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        hidden = sum(self.tables[i](hidden) for i in range(self.config.num_attention_heads))
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


class TwoTowers(Custom):
    """As models of images and text are: one list of layers is not run for the inputs at hand, one reads parameters."""

    def __init__(self, config):
        super().__init__(config)
        for name in ("images", "text", "scales"):
            setattr(self, name, nn.ModuleList(nn.Linear(8, 8) for _ in range(4)))
        self.post_init()

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        for layer, scale in zip(self.text, self.scales, strict=True):
            hidden = layer(hidden) * scale.weight[0]
        return hidden


def test_equal_lists_in_the_code_are_one_constant_and_equal_buffers_two():
    constants = capture(transformers.BertConfig(**SMALL), Constants).program.constants
    lifted = [name for name in constants if name not in ("a", "b")]
    assert len(lifted) == 1 and constants[lifted[0]].tolist() == [4, 1]
    assert [constants[name].dtype.kind for name in "ab"] == ["f", "f"] and constants["a"] == 1.296875


def test_lists_of_layers_that_are_not_run_are_none_that_were_cut():
    found = capture(transformers.BertConfig(**SMALL), TwoTowers)
    assert {path: stack.kept for path, stack in found.stacks.items()} == {"text": 2, "scales": 2}


def test_a_list_that_the_code_counts_itself_is_whole_and_others_are_cut():
    config = transformers.BertConfig(**{**SMALL, "num_attention_heads": 4, "num_hidden_layers": 5})
    captured = capture(config, ByNumber)
    kept = {path: (stack.kept, stack.length) for path, stack in captured.stacks.items()}
    assert kept == {"tables": (4, 4), "layers": (2, 5)}
    found = whole_lists(config, ByNumber, (), {"batch": 2, "seq": 3})
    assert found == {"tables"} and twin_config(config, ByNumber, captured.spec).whole == found
    assert captured.whole == found and capture(config, ByNumber, whole=found).whole == found


def test_a_weight_that_a_model_rescales_is_read_rescaled():
    program = capture(transformers.BertConfig(**SMALL), Rescaling).program
    assert len(program.outputs) == 1 and "aten.div" in format_program(program)
