"""Nothing that is computed hangs on a name: a copy of a model under other names converts to the same numbers."""

import copy

import pytest
import renamed_source
import torch
from float64_reference import error_against, inputs_of, lowered, noisy_model
from tiny_models import MODELS
from transformers.models.bert import configuration_bert, modeling_bert
from transformers.models.llama import configuration_llama, modeling_llama

from hf2khc.check.reference import outputs_float64, widen
from hf2khc.driver.convert import compile_only

FILES = {"llama": (configuration_llama, modeling_llama), "bert": (configuration_bert, modeling_bert)}


@pytest.fixture(scope="module", params=FILES)
def pair(request, tmp_path_factory):
    """A model and its copy under other names, with the same weights; the folder of the copy."""
    config, model_class = MODELS[request.param]
    folder = tmp_path_factory.mktemp("renamed")
    names = renamed_source.renamed_module(*FILES[request.param], model_class.__name__, folder)
    config_class, other_class = renamed_source.load(folder, names, type(config).__name__, model_class.__name__)
    fields = config.to_diff_dict() | {name: getattr(config, name) for name in names.fields}
    fields = {names.fields.get(k, k): v for k, v in fields.items() if k not in ("model_type", "transformers_version")}
    other_config = config_class(**fields)
    model = noisy_model(config, model_class)
    other = other_class(copy.deepcopy(other_config)).eval()
    with torch.no_grad():
        for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
            theirs.copy_(mine)
    return model, other, folder, names


def test_nothing_has_its_name(pair):
    model, other, _, names = pair
    old = {part for name, _ in model.named_parameters() for part in name.split(".")}
    new = {part for name, _ in other.named_parameters() for part in name.split(".")}
    assert {part for part in old & new if not part.isdigit()} <= {"weight", "bias", "self"}
    classes = {type(m).__name__ for m in other.modules()} & {type(m).__name__ for m in model.modules()}
    assert not {name for name in classes if name in names.classes}
    assert len(names.fields) >= 10


def test_the_copy_converts_to_the_same_numbers(pair):
    model, other, _, _ = pair
    captured, program = lowered(other.config, type(other))
    assert error_against(other, captured, program) < 1e-11
    first, second = copy.deepcopy(model), copy.deepcopy(other)
    widen(first)
    widen(second)
    for inputs in inputs_of(captured):
        ours, theirs = outputs_float64(first, inputs), outputs_float64(second, inputs)
        assert all(torch.equal(torch.from_numpy(ours[k]), torch.from_numpy(theirs[k])) for k in ours)


def test_the_copy_becomes_the_same_program(pair):
    model, other, _, _ = pair
    assert shape(lowered(model.config, type(model))[1]) == shape(lowered(other.config, type(other))[1])


def test_the_copy_is_followed_back_to_its_config(pair, monkeypatch):
    _, other, folder, _ = pair
    monkeypatch.setenv("PYTHONPATH", str(folder))  # for the process of the twin
    compiled = compile_only(other)
    assert compiled.generalises == ()
    assert compiled.validation and max(compiled.validation.values()) < 1e-10


def shape(program) -> list:
    """A program without its names."""
    found = []
    for graph in program.callees_first():
        order = {name: i for i, name in enumerate(graph.nodes)}
        for node in graph:
            attrs = {k: v for k, v in node.attrs.items() if k not in ("graph", "path", "name")}
            found.append((node.op, tuple(o and order[o] for o in node.operands), tuple(sorted(attrs.items(), key=str))))
    return found
