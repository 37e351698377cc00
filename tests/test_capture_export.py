"""The exported program computes what the model computes, at sizes other than the traced ones."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from custom_models import SMALL, Custom, captured
from torch import nn

from hf2khc.capture.aten import aten_evaluator
from hf2khc.capture.build import configs
from hf2khc.capture.importer import import_program
from hf2khc.capture.inputs import sample_inputs
from hf2khc.capture.random_weights import add_noise
from hf2khc.diagnostics import ConversionError
from hf2khc.ir.interpret import interpret

T5 = {"d_model": 16, "d_ff": 24, "d_kv": 8, "num_heads": 2, "num_layers": 2, "vocab_size": 40}
GEMMA = {**SMALL, "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 4}
MODELS = {
    "gpt2": (transformers.GPT2LMHeadModel, transformers.GPT2Config(n_embd=16, n_layer=4, n_head=2, vocab_size=40)),
    "bert": (transformers.BertModel, transformers.BertConfig(**SMALL)),
    "gemma2": (transformers.Gemma2ForCausalLM, transformers.Gemma2Config(**GEMMA)),
    "vit": (transformers.ViTModel, transformers.ViTConfig(**SMALL, image_size=24, patch_size=8)),
    "t5": (transformers.T5Model, transformers.T5Config(**T5)),
}


@cache
def known(name):
    return captured(*MODELS[name])


@pytest.mark.parametrize("name", MODELS)
def test_export_computes_the_model(name):
    model, spec, captured_model = known(name)
    # Weights come after the capture: nothing of it may depend on them.
    fill(model)
    sizes = {symbol: size + 3 for symbol, size in captured_model.sizes.items()}
    inputs = {name: torch.from_numpy(a) for name, a in sample_inputs(spec, sizes, padding="right").items()}
    with torch.no_grad():
        expected = model(**inputs)
        found = captured_model.program.module()(**inputs)
    assert list(found) == list(expected)
    for key in expected:
        torch.testing.assert_close(found[key], expected[key])


def fill(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    add_noise(model, 0)


def test_symbols_have_names():
    _, spec, found = known("t5")
    assert sorted(found.symbols.values()) == ["batch", "decoder_seq", "seq"] and not found.notes
    assert found.attention == "sdpa"


def test_outputs_hold_no_cache():
    model, _, found = known("gpt2")
    assert not any(part.use_cache for part in configs(model.config))
    outputs = [node for node in found.program.graph.nodes if node.op == "output"][0].args[0]
    assert len(outputs) == 1


def test_a_window_shows_at_the_traced_length():
    _, _, found = known("gemma2")
    assert found.sizes["seq"] > 4


class Branching(Custom):
    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        if hidden.sum() > 0:
            hidden = hidden * 2
        return hidden


class Remembering(Custom):
    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("step", torch.arange(8.0), persistent=False)

    def _init_weights(self, module):
        if module is self:
            self.step.copy_(torch.arange(8.0))

    def forward(self, input_ids):
        self.step = self.step * 2 + 1
        return self.embed(input_ids) + self.step


def test_what_branches_on_data_is_refused_with_its_line():
    with pytest.raises(ConversionError) as caught:
        captured(Branching, transformers.BertConfig(**SMALL))
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "not-capturable"
    lines = Path(__file__).read_text().splitlines()
    line = 1 + next(i for i, text in enumerate(lines) if text.strip() == "if hidden.sum() > 0:")
    assert diagnostic.location.startswith(f"{__file__}:{line}  (Branching, model)")


def test_a_buffer_that_is_written_is_not_a_result():
    model, _, found = captured(Remembering, transformers.BertConfig(**SMALL))
    program = import_program(found.program, model, found.symbols)
    assert len(program.outputs) == len(program.main.outputs) == 1


class Borrower(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Linear(8, 8)

    def forward(self, hidden, lent):
        return lent(self.scale(hidden))


class Lending(Custom):
    def __init__(self, config):
        super().__init__(config)
        self.inner = Borrower()
        self.norm = nn.LayerNorm(8)
        self.unread = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.1))

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        self.unread(hidden)
        return self.norm(hidden) + self.inner(hidden, self.norm)


def test_a_module_that_is_handed_to_another_computes_there():
    model, spec, found = captured(Lending, transformers.BertConfig(**SMALL))
    fill(model)
    program = import_program(found.program, model, found.symbols)
    inputs = sample_inputs(spec, {symbol: size + 3 for symbol, size in found.sizes.items()}, padding="right")
    with torch.no_grad():
        expected = model(torch.from_numpy(inputs["input_ids"]))
    weights = {path: tensor.numpy() for path, tensor in model.state_dict().items()}
    (result,) = interpret(program, inputs, weights.__getitem__, {"aten": aten_evaluator()})
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    # What nobody reads is no graph.
    assert all(graph.outputs for graph in program.graphs.values())
