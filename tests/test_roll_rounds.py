"""Loops over a free length: three rounds of a trace become one scan, or the length stays fixed."""

import numpy as np
import pytest
import torch
import transformers
from custom_models import SMALL, Custom, captured

from hf2khc.capture.importer import import_program
from hf2khc.capture.roll_rounds import RoundsDiffer, roll_rounds
from hf2khc.driver.twin import aten_evaluator
from hf2khc.ir.evaluate import keras_evaluators
from hf2khc.ir.interpret import interpret
from hf2khc.ir.text import format_program, parse_program
from hf2khc.ir.verify import verify

CONFIG = transformers.BertConfig(**SMALL)


class Stacked(Custom):
    """As Mamba does it: a state, and a list of results that is stacked."""

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        state, results = torch.zeros(hidden.shape[0], 8), []
        for step in range(hidden.shape[1]):
            state = torch.tanh(hidden[:, step] * 0.5 + state)
            results.append(state[:, :3] * 2)
        return torch.stack(results, dim=-1) + hidden.sum(-1)[:, None]


class Written(Custom):
    """As RWKV does it: results are written into a tensor; one state of two is read by the results alone."""

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        output = torch.zeros_like(hidden)
        total, largest = torch.zeros_like(hidden[:, 0]), torch.zeros_like(hidden[:, 0]) - 1e38
        for step in range(hidden.size(1)):
            entry = hidden[:, step]
            largest = torch.maximum(largest, entry)
            output[:, step] = total + largest
            total = total + entry * self.embed.weight[0]
        return output


class Last(Custom):
    """The state behind the last entry."""

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        state = torch.zeros_like(hidden[:, 0])
        for step in range(hidden.shape[1]):
            state = 0.5 * state + hidden[:, step]
        return state


class Entries(Custom):
    """Two loops, one behind the other, along a first axis and from 0 on."""

    def forward(self, input_ids):
        hidden = self.embed(input_ids).transpose(0, 1)
        for _ in range(2):
            state, results = torch.zeros_like(hidden[0]), []
            for step in range(0, hidden.shape[0]):
                state = state * 0.5 + hidden[step]
                results.append(state)
            hidden = torch.stack(results)
        return hidden.transpose(0, 1)


@pytest.mark.parametrize("model_class", [Stacked, Written, Last, Entries])
def test_a_loop_over_a_free_length_is_one_scan(model_class):
    model, spec, found = captured(model_class, CONFIG)
    assert found.smallest == {"batch": 2, "seq": 2} and not found.notes
    program = import_program(found.program, model, found.symbols)
    verify(program, "aten")
    scans = [node for graph in program.graphs.values() for node in graph.of("scan")]
    assert len(scans) == (2 if model_class is Entries else 1)
    assert format_program(parse_program(format_program(program))) == format_program(program)
    real = model_class(CONFIG).double()
    for length in (1, 2, 3, 17):
        ids = np.random.default_rng(length).integers(0, 40, (4, length))
        with torch.no_grad():
            expected = real(torch.from_numpy(ids))
        evaluators = {**keras_evaluators(), "aten": aten_evaluator()}
        (result,) = interpret(program, {"input_ids": ids}, lambda path: real.state_dict()[path].numpy(), evaluators)
        np.testing.assert_allclose(np.asarray(result), expected.numpy(), atol=1e-12)


class Numbered(Custom):
    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        state = torch.zeros_like(hidden[:, 0])
        for step in range(hidden.shape[1]):
            state = state + hidden[:, step] if step < 5 else state * 2
        return state


class Odd(Custom):
    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        state = torch.zeros_like(hidden[:, 0])
        for step in range(hidden.shape[1]):
            state = state + hidden[:, step] * (step + 1)
        return state


class FirstDiffers(Custom):
    def forward(self, input_ids):
        hidden, state = self.embed(input_ids), None
        for step in range(hidden.shape[1]):
            state = hidden[:, step] if state is None else torch.tanh(hidden[:, step] + state)
        return state


class TwoBack(Custom):
    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        before, state = torch.zeros_like(hidden[:, 0]), torch.zeros_like(hidden[:, 0])
        for step in range(hidden.shape[1]):
            before, state = state, hidden[:, step] + before
        return state


@pytest.mark.parametrize("model_class", [Numbered, Odd])
def test_a_round_that_asks_for_its_number_is_not_rolled(model_class):
    _, _, found = captured(model_class, CONFIG)
    assert found.notes[-1].startswith("fixed length seq = 11, proved at that alone")


@pytest.mark.parametrize("model_class", [FirstDiffers, TwoBack])
def test_rounds_that_differ_are_no_scan(model_class):
    model, _, found = captured(model_class, CONFIG)
    with pytest.raises(RoundsDiffer):
        import_program(found.program, model, found.symbols)


ROUNDS = """
graph Model(%x: f32[batch, seq, 4], %start: f32[batch, 4]) {
  %a0: f32[batch, 4] = aten.select(%x, dim=1, index=0)
  %s0: f32[batch, 4] = aten.add(%start, %a0)
  %a1: f32[batch, 4] = aten.select(%x, dim=1, index=1)
  %s1: f32[batch, 4] = aten.add(%s0, %a1)
  %a2: f32[batch, 4] = aten.select(%x, dim=1, index=2)
  %s2: f32[batch, 4] = aten.add(%s1, %a2)
  return %s2
}

entry Model
"""
MARKS = {f"{name}{number}": (0, number) for number in range(3) for name in "as"}


def test_rounds_beside_one_another():
    graph, (step,) = roll_rounds(parse_program(ROUNDS).main, MARKS, "Step", {"Step"})
    assert step.name == "Step_1" and step.cls == "Step"
    assert [node.op for node in graph] == ["input", "input", "aten.permute", "scan", "aten.select"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("aten.add(%s1, %a2)", "aten.sub(%s1, %a2)"),  # another operation in the last round
        ("%s1: f32[batch, 4] = aten.add(%s0", "%s1: f32[batch, 4] = aten.mul(%s0"),
        ("aten.add(%s1, %a2)", "aten.add(%a2, %s1)"),  # operands in another order
        ("aten.add(%s1, %a2)", "aten.add(%s0, %a2)"),  # what was two rounds ago
        ("dim=1, index=2", "dim=1, index=1"),  # an entry twice
        ("dim=1, index=1", "dim=1, index=0"),
        ("return %s2", "return %s1"),  # a value of the second round
        ("return %s2", "return %s2, %s0"),
    ],
)
def test_rounds_with_one_thing_changed_are_no_scan(old, new):
    graph = parse_program(ROUNDS.replace(old, new, 1)).main
    with pytest.raises(RoundsDiffer):
        roll_rounds(graph, MARKS, "Step")
