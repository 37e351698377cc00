"""The exported program computes what the model computes, at sizes other than the traced ones."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from custom_models import SMALL, Custom
from torch import nn

from hf2khc.capture import time_loops
from hf2khc.capture.aten import aten_evaluator
from hf2khc.capture.build import build_meta, configs, materialise
from hf2khc.capture.export import export
from hf2khc.capture.importer import import_program
from hf2khc.capture.inputs import input_spec, sample_inputs, trace_sizes
from hf2khc.capture.random_weights import add_noise
from hf2khc.capture.time_loops import looped_lengths
from hf2khc.capture.truncate import truncate
from hf2khc.diagnostics import ConversionError
from hf2khc.ir.interpret import interpret
from hf2khc.ir.text import format_program

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


def captured(model_class, config):
    model = build_meta(config, model_class)
    truncate(model)
    materialise(model)
    spec = input_spec(model)
    return model, spec, export(model, spec, trace_sizes(model, spec))


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


class FixedLength(Custom):
    def forward(self, input_ids):
        return self.embed(input_ids)[:, :11].reshape(-1, 11 * 8)


def test_what_branches_on_data_is_refused_with_its_line():
    with pytest.raises(ConversionError) as caught:
        captured(Branching, transformers.BertConfig(**SMALL))
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "not-capturable"
    lines = Path(__file__).read_text().splitlines()
    line = 1 + next(i for i, text in enumerate(lines) if text.strip() == "if hidden.sum() > 0:")
    assert diagnostic.location.startswith(f"{__file__}:{line}  (Branching, model)")


def test_a_size_that_is_not_free_is_noted():
    _, _, found = captured(FixedLength, transformers.BertConfig(**SMALL))
    first, last = found.notes
    assert "named sizes" in first and "Constraints violated (seq)" in first
    assert last.startswith("fixed length seq = 11, proved at that alone")
    assert set(found.smallest) == {"batch"}


class OverTime(Custom):
    def forward(self, input_ids):
        hidden, state = self.embed(input_ids), 0.0
        for step in range(hidden.shape[1]):
            state = torch.tanh(hidden[:, step] + state)
        return state


class Padding(Custom):
    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        if hidden.shape[1] % 2:
            hidden = nn.functional.pad(hidden, (0, 0, 0, 1))
        return hidden.unflatten(1, (-1, 2)).sum(2)


class Chunks(Custom):
    """As state space models do it."""

    size = 4

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        length = hidden.shape[1]
        missing = (self.size - length % self.size) % self.size
        hidden = nn.functional.pad(hidden, (0, 0, 0, missing)).unflatten(1, (-1, self.size)).cumsum(2).flatten(1, 2)
        return hidden[:, :length] if missing > 0 else hidden


class LongChunks(Chunks):
    size = 40


class EndOfTable(Custom):
    """As ALiBi does it in MPT: the distances to the last position, as many as there are positions."""

    def forward(self, input_ids):
        size = getattr(self.config, "max_seq_len", self.config.max_position_embeddings)
        table = torch.arange(1 - size, 1)
        return self.embed(input_ids) * table[max(0, len(table) - input_ids.shape[1]) :][None, :, None]


class Counting(Custom):
    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        return hidden.reshape(len(hidden), -1, 4).sum(1)


class Halving(Custom):
    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        return hidden[:, : torch.div(hidden.shape[1], 2, rounding_mode="trunc")].mean(1)


class Shortening(Custom):
    def forward(self, input_ids):
        return self.embed(input_ids)[:, 5:-1].mean(1)


def test_a_loop_over_time_has_a_fixed_length_and_is_named():
    _, _, found = captured(OverTime, transformers.BertConfig(**SMALL))
    line = 1 + Path(__file__).read_text().splitlines().index("            state = torch.tanh(hidden[:, step] + state)")
    note = (
        f"fixed length seq = 11, proved at that alone: the loop at {Path(__file__).name}:{line} is unrolled, 11 times"
    )
    assert found.notes[-1] == note


def test_operations_that_grow_with_the_length_are_found_before_a_trace(monkeypatch):
    model = materialise(build_meta(transformers.BertConfig(**SMALL), OverTime))
    spec = input_spec(model)
    sizes = trace_sizes(model, spec)
    assert not looped_lengths(model, spec, sizes)  # a trace is quicker
    monkeypatch.setattr(time_loops, "MANY", 10)
    assert set(looped_lengths(model, spec, sizes)) == {"seq"}
    found = export(model, spec, sizes)
    assert len(found.notes) == 1 and found.notes[0].startswith("fixed length seq = 11")


def test_operations_that_come_from_some_length_on_are_no_loop(monkeypatch):
    monkeypatch.setattr(time_loops, "MANY", 1)
    model = materialise(build_meta(transformers.BertConfig(**SMALL), LongOnly))
    assert not looped_lengths(model, input_spec(model), {"batch": 3, "seq": 11})


class LongOnly(Custom):
    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        return torch.tanh(hidden) if hidden.shape[1] > 20 else hidden


def test_a_table_that_grows_with_the_length_is_as_before(monkeypatch):
    monkeypatch.setattr(time_loops, "MANY", 1)
    model = materialise(build_meta(transformers.BertConfig(**SMALL), Growing))
    assert not looped_lengths(model, input_spec(model), {"batch": 3, "seq": 11})
    assert model.embed.weight.shape == (40, 8)


class Growing(Custom):
    """As the sinusoids of FSMT: a longer sequence makes the table longer for good."""

    def forward(self, input_ids):
        if input_ids.shape[1] > 12:
            self.embed.weight = nn.Parameter(torch.zeros(input_ids.shape[1] + 30, 8))
        return self.embed(input_ids)


def test_a_length_that_is_not_free_is_the_one_asked_for():
    model = materialise(build_meta(transformers.BertConfig(**SMALL), OverTime))
    spec = input_spec(model)
    found = export(model, spec, trace_sizes(model, spec), {"batch": 9, "seq": 4})
    assert found.sizes["seq"] == 4 and found.sizes["batch"] != 9 and "seq = 4" in found.notes[-1]


def test_a_size_is_not_free_where_others_take_another_way():
    """torch frees the length: that it is odd stands in an assertion alone."""
    _, _, found = captured(Padding, transformers.BertConfig(**SMALL))
    assert set(found.smallest) == {"batch"} and "fixed length seq = 11" in found.notes[-1]


def test_a_size_is_free_where_others_pad_by_nothing_and_one_of_those_is_proved():
    _, _, found = captured(Chunks, transformers.BertConfig(**SMALL))
    assert set(found.smallest) == {"batch", "seq"} and found.edges["seq"] % 4 == 0


def test_what_is_short_for_one_chunk_is_traced_with_several():
    _, _, found = captured(LongChunks, transformers.BertConfig(**SMALL))
    assert found.sizes["seq"] > 80 and found.smallest["seq"] <= 41 and found.edges["seq"] % 40 == 0


@pytest.mark.parametrize("field", ["max_position_embeddings", "max_seq_len"])
def test_what_is_cut_to_the_length_is_as_long_as_it(field):
    """Beyond the table the model fails; up to its end the larger one of two sizes is known."""
    config = transformers.BertConfig(**SMALL, **{field: 40})
    model, _, found = captured(EndOfTable, config)
    assert found.smallest.keys() == {"batch", "seq"} and found.largest == {"seq": 40}
    program = import_program(found.program, model, found.symbols, largest=found.largest)
    text = format_program(program)
    assert "max(" not in text and "start=40 + -1 * seq" in text


def test_a_batch_that_python_counts_is_free():
    _, _, found = captured(Counting, transformers.BertConfig(**SMALL))
    assert set(found.smallest) == {"batch", "seq"}
    assert "len" not in globals()


def test_a_quotient_of_sizes_that_torch_computes_is_a_size():
    _, _, found = captured(Halving, transformers.BertConfig(**SMALL))
    assert set(found.smallest) == {"batch", "seq"}


def test_a_free_size_has_a_smallest_value():
    _, _, found = captured(Shortening, transformers.BertConfig(**SMALL))
    assert found.smallest["batch"] == 2 and 6 <= found.smallest["seq"] <= 8


def test_a_buffer_that_is_written_is_not_a_result():
    model, _, found = captured(Remembering, transformers.BertConfig(**SMALL))
    program = import_program(found.program, model, found.symbols)
    assert len(program.outputs) == len(program.main.outputs) == 1


class Table(Custom):
    def __init__(self, config):
        super().__init__(config)
        self.places = nn.Parameter(torch.zeros(34, 8))

    def forward(self, input_ids):
        length = input_ids.shape[1]
        torch._check(length <= self.places.shape[0])
        return self.embed(input_ids) + self.places[:length]


@pytest.mark.parametrize(("positions", "free"), [({"max_target_positions": 32}, True), ({"chunk": 32}, False)])
def test_a_table_of_positions_may_end(positions, free):
    config = transformers.BertConfig(**{**SMALL, "max_position_embeddings": 20000}, **positions)
    _, _, found = captured(Table, config)
    assert ("seq" in found.smallest) == free


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


class Stacking(Custom):
    """Puts every four positions side by side, padded at the end."""

    def __init__(self, config):
        super().__init__(config)
        self.projection = nn.Linear(32, 8)
        self.post_init()

    def forward(self, input_ids):
        x = nn.functional.pad(self.embed(input_ids), (0, 0, 0, -input_ids.shape[1] % 4))
        return self.projection(x.reshape(x.shape[0], x.shape[1] // 4, -1))


def test_a_quotient_of_sizes_that_torch_asserts_to_be_a_number_is_one():
    model, _, found = captured(Stacking, transformers.BertConfig(**SMALL))
    program = import_program(found.program, model, found.symbols)
    (stacked,) = (node for graph in program.graphs.values() for node in graph.of("aten.reshape"))
    assert stacked.tensor.shape[2] == 32
