"""Truncation keeps what shows every kind of layer, and its undoing is exact."""

import pytest
import torch
import transformers
from torch import nn

from hf2khc.capture.build import build_meta, materialise
from hf2khc.capture.truncate import layer_kinds, prefix_length, restore, truncate

SMALL = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 40}


@pytest.mark.parametrize(
    ("kinds", "length"),
    [("aaaa", 2), ("abab", 3), ("abbb", 3), ("aaab", 4), ("aaabaaab", 5), ("aabb", 4), ("abcabc", 4), ("ab", 2),
     ("a", 1), ("aaabbaaab", 6)],
)  # fmt: skip
def test_prefix_shows_every_kind_and_what_follows_it(kinds, length):
    assert prefix_length(kinds) == length


def stacks_of(model_class, config):
    model = build_meta(config, model_class)
    return model, truncate(model)


def test_equal_layers():
    config = transformers.LlamaConfig(**SMALL, num_hidden_layers=9)
    model, stacks = stacks_of(transformers.LlamaForCausalLM, config)
    (stack,) = stacks.values()
    assert (stack.path, stack.length, stack.kept, set(stack.kinds)) == ("model.layers", 9, 2, {0})
    assert len(model.model.layers) == 2 and len(stack.kinds) == 9


def test_layers_that_share_parameters_are_all_kept():
    config = transformers.LlamaConfig(**SMALL, num_hidden_layers=5)
    model = build_meta(config, transformers.LlamaModel)
    model.layers[4].mlp = model.layers[1].mlp
    stack = truncate(model)["layers"]
    assert not stack.cut and stack.kept == 5


def test_kinds_come_from_the_config_and_from_parameters():
    gemma = transformers.Gemma3TextConfig(**SMALL, num_hidden_layers=13, head_dim=8)
    _, stacks = stacks_of(transformers.Gemma3TextModel, gemma)
    assert stacks["layers"].kept == 7 and stacks["layers"].kinds[:7] == (0, 0, 0, 0, 0, 1, 0)
    t5 = transformers.T5Config(d_model=16, d_ff=24, d_kv=8, num_heads=2, num_layers=5, vocab_size=40)
    _, stacks = stacks_of(transformers.T5Model, t5)
    assert {stack.kept for stack in stacks.values() if stack.cut} == {3}, (
        "the first block has a relative bias, the others have not"
    )


class Layer(nn.Module):
    def __init__(self, index, width):
        super().__init__()
        self.layer_idx, self.hidden_width = index, width
        self.inner = nn.Linear(2, 2)


class Layered(transformers.PreTrainedModel):
    config_class = transformers.BertConfig

    def __init__(self, config, widths=()):
        super().__init__(config)
        self.blocks = nn.ModuleList(Layer(i, width) for i, width in enumerate(widths))
        self.post_init()


def kinds_of(widths):
    model = Layered(transformers.BertConfig(), widths)
    return layer_kinds(model, model.blocks)


def test_an_index_is_no_kind_and_a_width_is():
    assert kinds_of([7, 7, 7]) == (0, 0, 0)
    # The width of the third layer equals its index: it is a width all the same.
    assert kinds_of([2, 2, 2]) == (0, 0, 0)
    assert kinds_of([7, 7, 5]) == (0, 0, 1)


def test_nested_parameters_are_seen():
    model = Layered(transformers.BertConfig(), [7, 7, 7])
    model.blocks[2].inner = nn.Linear(2, 2, bias=False)
    assert layer_kinds(model, model.blocks) == (0, 0, 1)
    model.blocks[2].inner = nn.Linear(2, 2)
    model.blocks[1].inner.eps = 1e-3
    assert layer_kinds(model, model.blocks) == (0, 1, 0)


def test_restore_undoes():
    config = transformers.LlamaConfig(**SMALL, num_hidden_layers=7)
    model, stacks = stacks_of(transformers.LlamaModel, config)
    whole = list(build_meta(config, transformers.LlamaModel).state_dict())
    assert list(model.state_dict()) != whole
    restore(model, stacks)
    assert list(model.state_dict()) == whole
    materialise(model)
    assert model(torch.ones(1, 3, dtype=torch.long)).last_hidden_state.shape == (1, 3, 16)


def test_a_list_may_have_gaps():
    model = Layered(transformers.BertConfig(), [7, 7, 7])
    model.blocks.append(None)
    assert layer_kinds(model, model.blocks) == (0, 0, 0, 1)
    assert truncate(model)["blocks"].kept == 4
