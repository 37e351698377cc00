"""Which sizes of a trace are free, from which on and up to which, and why the others are not."""

from pathlib import Path

import pytest
import torch
import transformers
from custom_models import SMALL, Custom, captured
from torch import nn

from hf2khc.capture import time_loops
from hf2khc.capture.build import build_meta, materialise
from hf2khc.capture.export import export
from hf2khc.capture.importer import import_program
from hf2khc.capture.inputs import input_spec, trace_sizes
from hf2khc.capture.time_loops import looped_lengths
from hf2khc.ir.text import format_program


class FixedLength(Custom):
    def forward(self, input_ids):
        return self.embed(input_ids) + torch.ones(11, 8)


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
            state = torch.tanh(hidden[:, step] / (step + 1) + state)
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
    line = 1 + Path(__file__).read_text().splitlines().index(
        "            state = torch.tanh(hidden[:, step] / (step + 1) + state)"
    )
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
