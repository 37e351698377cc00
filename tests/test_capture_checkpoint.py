"""Names in a checkpoint, random weights, names in the source."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from hf2khc.capture.build import build_meta, quiet
from hf2khc.capture.checkpoint_files import read_checkpoint
from hf2khc.capture.checkpoint_names import checkpoint_names
from hf2khc.capture.file_operations import tensor
from hf2khc.capture.names_analysis import assignment_names, tuple_names
from hf2khc.capture.random_weights import add_noise, check_memory, estimate_bytes, materialise
from hf2khc.capture.record_conversion import Recorder, UnknownConversion
from hf2khc.capture.source import open_source
from hf2khc.diagnostics import ConversionError
from hf2khc.weights.transform import evaluate

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 40}
EXPERTS = {**SMALL, "num_local_experts": 3, "num_experts_per_tok": 2, "num_key_value_heads": 1}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 40}


def saved(model, directory, **options):
    add_noise(model, 0)
    with quiet():
        model.save_pretrained(directory, **options)
    return model


def tensors_of(directory):
    return {name: value for path in directory.glob("*.safetensors") for name, value in load_file(path).items()}


def assert_agrees_with_loading(directory, model_class, config):
    """Every parameter, put together as `checkpoint_names` says, equals what transformers loads."""
    names = checkpoint_names(build_meta(config, model_class), read_checkpoint(directory))
    tensors = tensors_of(directory)
    with quiet():
        loaded = model_class.from_pretrained(directory)
    for path, value in loaded.state_dict().items():
        operation = names.stored[path]
        found = evaluate(operation.transform, [tensors[name].numpy() for name in operation.tensors])
        assert torch.equal(torch.from_numpy(found.copy()), value), path
    return names


@pytest.mark.parametrize("saved_class", [transformers.BertModel, transformers.BertForMaskedLM])
def test_the_prefix_of_the_base_model_is_added_and_taken_away(tmp_path, saved_class):
    config = transformers.BertConfig(**SMALL)
    saved(transformers.BertForMaskedLM(config) if saved_class is not transformers.BertModel else
          transformers.BertModel(config, add_pooling_layer=False), tmp_path)  # fmt: skip
    model = build_meta(config, transformers.BertModel)
    del model.pooler
    names = checkpoint_names(model, read_checkpoint(tmp_path))
    prefix = "" if saved_class is transformers.BertModel else "bert."
    assert names.stored["embeddings.word_embeddings.weight"].tensors == (f"{prefix}embeddings.word_embeddings.weight",)
    assert all(name.startswith("cls.") for name in names.unused)


def test_legacy_names(tmp_path):
    config = transformers.BertConfig(**SMALL)
    saved(transformers.BertModel(config), tmp_path)
    legacy = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
              for name, value in tensors_of(tmp_path).items()}  # fmt: skip
    save_file(legacy, tmp_path / "model.safetensors", metadata={"format": "pt"})
    names = assert_agrees_with_loading(tmp_path, transformers.BertModel, config)
    assert names.stored["embeddings.LayerNorm.weight"].tensors == ("embeddings.LayerNorm.gamma",)


def test_experts_are_merged(tmp_path):
    config = transformers.MixtralConfig(**EXPERTS)
    saved(transformers.MixtralForCausalLM(config), tmp_path)
    names = assert_agrees_with_loading(tmp_path, transformers.MixtralForCausalLM, config)
    merged = [operation for operation in names.stored.values() if not operation.is_tensor]
    assert len(merged) == 4 and {len(operation.tensors) for operation in merged} == {3, 6}
    assert merged[0].transform.startswith(("concatenate([stack([x0, x1, x2]", "stack([x0, x1, x2]"))


def test_tied_parameters_have_one_source(tmp_path):
    config = transformers.GPT2Config(**GPT2)
    saved(transformers.GPT2LMHeadModel(config), tmp_path)
    names = assert_agrees_with_loading(tmp_path, transformers.GPT2LMHeadModel, config)
    assert names.aliases == {"lm_head.weight": "transformer.wte.weight"}
    assert names.stored["lm_head.weight"] == names.stored["transformer.wte.weight"]


def test_tied_parameters_may_stand_twice_in_the_file_if_they_are_equal(tmp_path):
    config = transformers.GPT2Config(**GPT2)
    saved(transformers.GPT2LMHeadModel(config), tmp_path)
    tensors = tensors_of(tmp_path)
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    names = assert_agrees_with_loading(tmp_path, transformers.GPT2LMHeadModel, config)
    assert names.repeats == {"lm_head.weight": "transformer.wte.weight"} and not names.unused
    tensors["lm_head.weight"][3, 3] += 1
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ConversionError, match="tied-weights-differ"):
        checkpoint_names(build_meta(config, transformers.GPT2LMHeadModel), read_checkpoint(tmp_path))


def test_the_file_may_hold_the_other_one_of_a_tied_pair(tmp_path):
    config = transformers.GPT2Config(**GPT2)
    saved(transformers.GPT2LMHeadModel(config), tmp_path)
    tensors = tensors_of(tmp_path)
    tensors["lm_head.weight"] = tensors.pop("transformer.wte.weight")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    names = assert_agrees_with_loading(tmp_path, transformers.GPT2LMHeadModel, config)
    assert names.aliases == {"transformer.wte.weight": "lm_head.weight"}


@pytest.mark.parametrize(
    ("values", "part"),
    [({"hidden_size": 24}, "another shape"), ({"num_hidden_layers": 3}, "lacks 16 weights"),
     ({"type_vocab_size": 5}, "1 weights have another shape")],
)  # fmt: skip
def test_weights_that_do_not_fit(tmp_path, values, part):
    saved(transformers.BertModel(transformers.BertConfig(**SMALL)), tmp_path)
    model = build_meta(transformers.BertConfig(**{**SMALL, **values}), transformers.BertModel)
    with pytest.raises(ConversionError, match=part):
        checkpoint_names(model, read_checkpoint(tmp_path))


def test_head_without_weights_is_refused(tmp_path):
    config = transformers.BertConfig(**SMALL)
    saved(transformers.BertModel(config), tmp_path)
    with pytest.raises(ConversionError, match="classifier.weight"):
        checkpoint_names(build_meta(config, transformers.BertForSequenceClassification), read_checkpoint(tmp_path))


def test_arithmetic_in_a_conversion_is_not_recorded():
    recorder = Recorder()
    value = torch.empty(4, device="meta")
    recorder.name(value, tensor("w"))
    with pytest.raises(UnknownConversion), recorder:
        value + 1


def test_random_weights_touch_every_tensor(tmp_path):
    source = open_source("bert", random_init=True, overrides=SMALL)
    written = materialise(source, tmp_path / "a", seed=3)
    materialise(source, tmp_path / "b", seed=3, shard="8KB")
    materialise(source, tmp_path / "c", seed=4)
    a, b, c = (tensors_of(tmp_path / name) for name in "abc")
    assert len(list((tmp_path / "b").glob("*.safetensors"))) > 1
    assert all(torch.equal(a[name], b[name]) for name in a) and not any(torch.equal(a[name], c[name]) for name in a)
    assert all(value.unique().numel() > 0.9 * value.numel() for value in a.values())
    assert (
        written.directory == tmp_path / "a" and open_source(str(tmp_path / "a")).model_class is transformers.BertModel
    )
    assert json.loads((tmp_path / "a" / "config.json").read_text())["architectures"] == ["BertModel"]


def test_noise_keeps_variances_positive_and_reaches_buffers():
    module = nn.Sequential(nn.BatchNorm1d(50))
    module.register_buffer("cache", torch.zeros(3), persistent=False)
    add_noise(module, 0)
    norm = module[0]
    assert norm.running_var.min() > 0 and norm.running_mean.abs().min() > 0 and norm.running_var.std() > 0
    assert norm.weight.std() > 0 and norm.bias.std() > 0 and not module.cache.any()


def test_a_live_model_is_saved_as_it_is(tmp_path):
    model = transformers.BertModel(transformers.BertConfig(**SMALL))
    materialise(open_source(model), tmp_path)
    found = tensors_of(tmp_path)
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())


def test_what_does_not_fit_is_refused(tmp_path):
    source = open_source("llama", random_init=True)
    assert 26e9 < estimate_bytes(source) < 28e9
    with pytest.raises(ConversionError, match="--set") as caught:
        check_memory(source, tmp_path, available=20 << 30)
    assert caught.value.diagnostics[0].code == "not-enough-memory"
    check_memory(source, tmp_path, available=60 << 30)


def test_names_of_assignments():
    lookup = assignment_names(build_meta(transformers.LlamaConfig(**SMALL), transformers.LlamaModel))
    file = transformers.models.llama.modeling_llama.__file__
    lines = Path(file).read_text().splitlines()
    number = 1 + next(i for i, line in enumerate(lines) if "query_states = self.q_proj(" in line)
    assert lookup(file, number) == "query_states"
    assert lookup(__file__, 1) is None and lookup("no such file", 1) is None
    number = 1 + next(i for i, line in enumerate(lines) if "query_states, key_states = apply_rotary" in line)
    assert lookup(file, number) is None and tuple_names(file, number) == ("query_states", "key_states")
