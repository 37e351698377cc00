"""The twin's part of a compilation, for models that have a twin and for those that do not."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest
import transformers
from custom_models import SMALL, Custom
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from hf2khc.capture.frontend import capture
from hf2khc.capture.twin import Twin
from hf2khc.diagnostics import ConversionError, fail
from hf2khc.driver.compile import lower
from hf2khc.driver.generalise import difference
from hf2khc.driver.twin import _Parameters, compile_twin
from hf2khc.driver.twin_worker import TwinWorker

CONFIG = transformers.GPT2Config(vocab_size=40, n_embd=8, n_head=2, n_layer=2, n_positions=16)


def failing_first(error: Exception):
    """`lower` that fails on the first program it gets, which is the twin's."""
    calls = []

    def lowering(program, after=None):
        calls.append(program)
        if len(calls) == 1:
            raise error
        return lower(program, after)

    return lowering


@pytest.mark.parametrize("error", [fail("shape-inference", "too short"), IndexError("too short")])
def test_a_model_that_does_not_run_at_other_sizes_is_validated_itself(error):
    found = compile_twin(CONFIG, transformers.GPT2Model, failing_first(error), validated=True)
    assert found.programs == () and "too short" in found.reason
    assert max(found.errors.values()) < 1e-10 and "lower_aten" in found.errors
    assert "past_key_values" in found.omitted


def test_what_is_too_large_to_be_validated_is_refused(monkeypatch):
    monkeypatch.setattr("hf2khc.driver.twin.MOST_VALIDATED", 100)
    with pytest.raises(ConversionError, match="too short.*too large"):
        compile_twin(CONFIG, transformers.GPT2Model, failing_first(IndexError("too short")), validated=True)


def test_a_miscompile_of_the_twin_is_no_reason_to_do_without_it():
    with pytest.raises(ConversionError, match="miscompile"):
        compile_twin(CONFIG, transformers.GPT2Model, failing_first(fail("miscompile", "differs")), validated=True)


def test_a_twin_in_which_nothing_differs_is_none(monkeypatch):
    """All numbers would be equal in it, and so none would be said not to follow the config."""
    kept = Twin(CONFIG, unchanged={"n_embd": "the structure of the model depends on it"})
    monkeypatch.setattr("hf2khc.driver.twin.twin_config", lambda *arguments, **keywords: kept)
    found = compile_twin(CONFIG, transformers.GPT2Model, lower, validated=True)
    assert found.programs == () and "the structure of the model depends on it" in found.reason


class Banded(transformers.GPT2Model):
    """Adds something where the heads are other than two: more than a size hangs on that field."""

    def forward(self, *arguments, **keywords):
        result = super().forward(*arguments, **keywords)
        if self.config.n_head != 2:
            result.last_hidden_state = self.changed(result.last_hidden_state)
        return result

    def changed(self, hidden):
        return hidden.sin()


class Shifted(Banded):
    """The same with what arranges numbers and computes none: only the program shows it."""

    def changed(self, hidden):
        return hidden[:, 1:]


@pytest.mark.parametrize(("model", "shown"), [(Banded, "model"), (Shifted, "program")])
def test_a_field_that_changes_the_program_stays_and_the_others_differ(monkeypatch, model, shown):
    monkeypatch.setattr("hf2khc.capture.twin_alike.MOST_PROGRAMS", 9)
    config = transformers.GPT2Config(vocab_size=40, n_embd=8, n_head=2, n_layer=1, n_positions=16)
    real = list(lower(capture(config, model).program).values())[-1]
    found = compile_twin(config, model, lower, validated=False, like=real)
    assert len(found.programs) == 2 and difference((real, *found.programs)) == ""
    assert set(found.fields["config.n_head"]) == {2} and f"structure of the {shown}" in found.kept["n_head"]
    assert len(set(found.fields["config.vocab_size"])) == 3


class Unbuildable(transformers.GPT2Model):
    def __init__(self, config):
        raise RuntimeError("not to be built")


@pytest.mark.parametrize(("shape", "summed"), [((64, 32), 32), ((64, 32, 5), 160), ((64, 32, 3, 3), 288)])
def test_random_weights_keep_the_size_of_what_they_sum(shape, summed):
    assert _Parameters._drawn("weight", shape).std() * summed**0.5 == pytest.approx(1, abs=0.1)


def test_a_weight_without_numbers_is_one():
    assert _Parameters._drawn("weight", (3, 0)).shape == (3, 0)


def test_one_worker_takes_job_after_job():
    with TwinWorker() as worker:
        for _ in range(2):
            worker.submit(CONFIG, Unbuildable, False)
            with pytest.raises(ConversionError, match="not to be built"):
                worker.result()
            assert worker._process.wait() == 0


def test_an_input_that_is_held_at_its_numbers_leaves_the_twin_as_it_is():
    """What decides a branch is no input of the program."""

    class Branching(transformers.GPT2Model):
        def forward(self, input_ids, attention_mask=None, lengths=None):
            return super().forward(input_ids if lengths[0] > 3 else input_ids.flip(-1), attention_mask=attention_mask)

    Branching.__module__ = transformers.GPT2Model.__module__
    ids = np.arange(22).reshape(2, 11) % 7
    example = {"input_ids": ids, "attention_mask": np.ones_like(ids), "lengths": np.array([11, 11])}
    found = compile_twin(CONFIG, Branching, lower, validated=False, examples=(example,))
    assert found.reason == "" and len(found.programs) == 2
    assert "lengths" not in found.programs[0].main


def test_one_twin_is_kept_where_the_second_does_not_run():
    calls = []

    def lowering(program, after=None):
        calls.append(program)
        if len(calls) == 2:
            raise IndexError("too short")
        return lower(program, after)

    found = compile_twin(CONFIG, transformers.GPT2Model, lowering, validated=False)
    assert len(calls) == 2 and found.reason == "" and len(found.programs) == 1
    assert all(len(values) == 2 for values in found.fields.values())


class Counting(Custom):
    """As FlauBERT does: it reaches for its layers by number."""

    def __init__(self, config):
        super().__init__(config)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(self.count))
        self.post_init()

    @property
    def count(self):
        return self.config.num_hidden_layers

    def forward(self, input_ids, return_dict=True):
        hidden = self.embed(input_ids)
        for i in range(self.count):
            hidden = self.layers[i](hidden)
        return BaseModelOutput(last_hidden_state=hidden)


def test_layers_that_are_printed_one_by_one_are_as_many_in_the_twin(monkeypatch):
    """Two are whole as they are; that they would not be cut shows where there are more."""
    # FlauBERT does not run in shapes alone: it asks for data.
    monkeypatch.setattr("hf2khc.capture.frontend.whole_lists", lambda *_: None)
    found = compile_twin(transformers.BertConfig(**{**SMALL, "num_hidden_layers": 2}), Counting, lower, validated=False)
    assert found.reason == "" and set(found.fields["config.num_hidden_layers"]) == {2}
    assert all(len(program.main.of("layers.Dense")) == 2 for program in found.programs)
