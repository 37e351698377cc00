"""The gradients of a package against those of the model: right as they are, and red when something is wrong."""

import pytest
import torch
from float64_reference import noisy_model
from tiny_models import MODELS

import hf2khc
from hf2khc.capture.source import open_source
from hf2khc.check.gradient_report import BOUND, VariableSource, compare_gradients
from hf2khc.check.gradients import _errors, _left_out, judge, padding_rows
from hf2khc.driver.gradients import proof_cases, reference
from hf2khc.write.weight_paths import weight_paths


def test_an_error_above_the_bound_a_missing_number_and_a_frozen_variable_are_problems():
    sizes = {"a": 3, "b": 5}
    assert judge({"a": 0.0, "b": BOUND}, sizes, []).holds
    assert not judge({"a": 0.0, "b": 2 * BOUND}, sizes, []).holds
    assert not judge({"a": 0.0, "b": float("inf")}, sizes, []).holds
    assert not judge({"a": 0.0, "b": 0.0}, sizes, ["b is not trainable"]).holds
    assert not judge({}, {}, []).holds


def test_errors_are_relative_to_each_gradient_but_not_to_rounding():
    theirs = {"a": torch.tensor([2.0, 1.0]), "b": torch.tensor([1e-12]), "c": torch.tensor([1.0])}
    ours = {"a": torch.tensor([2.0, 1.5]), "b": torch.tensor([2e-12]), "c": torch.tensor([float("nan")])}
    errors = _errors(ours, theirs)
    assert errors["a"] == 0.25 and errors["b"] < BOUND and errors["c"] == float("inf")


def test_rows_that_torch_never_trains_are_named_and_no_others():
    assert padding_rows(torch.nn.Sequential(torch.nn.Embedding(3, 2, padding_idx=1))) == {"0.weight": 1}
    theirs = {"0.weight": torch.tensor([[1.0, 1.0], [0.0, 0.0]])}
    ours = {"0.weight": torch.tensor([[1.0, 2.0], [3.0, 3.0]])}
    assert len(_left_out(ours, theirs, {"0.weight": 1})) == 1 and _errors(ours, theirs) == {"0.weight": 1.0}


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    model = noisy_model(*MODELS["llama"])
    directory = tmp_path_factory.mktemp("gradients") / "llama"
    done = hf2khc.convert(model, directory, check=False)
    saved = directory.parent / "model"
    model.save_pretrained(saved)
    return directory, open_source(str(saved)), done.compiled


def compared(converted, tmp_path, change=lambda sources: sources):
    directory, source, compiled = converted
    case = next(iter(proof_cases(source, compiled.captured, 0).values()))
    paths = [path for path in weight_paths(compiled.plan) if path.sources]
    variables = [VariableSource(path.keras, change(path.sources), path.transform) for path in paths]
    return compare_gradients(directory, reference(source), variables, case, compiled.signature, tmp_path)


def test_gradients_of_every_parameter(converted, tmp_path):
    found = compared(converted, tmp_path)
    assert found.holds and found.parameters == len(noisy_model(*MODELS["llama"]).state_dict())


def test_swapped_weights_have_other_gradients(converted, tmp_path):
    def swapped(sources):
        return tuple(s.replace("k_proj", "t").replace("v_proj", "k_proj").replace("t.", "v_proj.") for s in sources)

    found = compared(converted, tmp_path, swapped)
    assert not found.holds and any("proj" in problem for problem in found.problems)
