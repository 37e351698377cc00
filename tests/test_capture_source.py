"""Opening a source: every kind of MODEL, and one clear error for every bad one."""

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import save_file

from hf2khc.capture.checkpoint_files import read_checkpoint, same_bytes
from hf2khc.capture.model_classes import tasks
from hf2khc.capture.source import open_source, package_name
from hf2khc.diagnostics import ConversionError

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 40}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "Tiny-BERT.v2"
    model = transformers.BertModel(transformers.BertConfig(**TINY))
    model.save_pretrained(directory, max_shard_size="8KB")
    return directory


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def refused(code, model, **options):
    with pytest.raises(ConversionError) as caught:
        open_source(str(model) if not isinstance(model, torch.nn.Module) else model, **options)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == code, diagnostic.render()
    assert diagnostic.hint
    return diagnostic


def edit_config(directory, **values):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_local_directory(saved):
    source = open_source(str(saved))
    assert (source.name, source.model_class, source.directory) == ("tiny_bert_v2", transformers.BertModel, saved)
    assert source.config.hidden_size == 16


def test_model_type_with_overrides():
    source = open_source("gpt2", random_init=True, overrides={"hidden_size": 64, "n_head": 4})
    assert source.config.n_embd == 64 and source.config.n_head == 4 and source.directory is None
    assert source.model_class is transformers.GPT2Model


def test_dotted_override_reaches_the_sub_config():
    source = open_source("llava", random_init=True, overrides={"text_config.num_hidden_layers": 2})
    assert source.config.text_config.num_hidden_layers == 2


def test_override_keeps_the_rest_of_a_dictionary():
    overrides = {"rope_parameters.rope_theta": 5000.0}
    parameters = open_source("llama", random_init=True, overrides=overrides).config.rope_parameters
    assert parameters["rope_theta"] == 5000.0 and parameters["rope_type"] == "default"


def test_fewer_layers_cut_the_list_of_their_kinds(copied):
    edit_config(
        copied, model_type="gemma2", num_hidden_layers=4, layer_types=["sliding_attention", "full_attention"] * 2
    )
    config = open_source(str(copied), random_init=True, overrides={"num_hidden_layers": 2}).config
    assert config.layer_types == ["sliding_attention", "full_attention"]


def test_live_model():
    model = transformers.BertModel(transformers.BertConfig(**TINY))
    source = open_source(model)
    assert source.live is model and source.model_class is transformers.BertModel and source.name == "bert"
    assert source.config is not model.config


@pytest.mark.parametrize(
    ("task", "name"),
    [("masked-lm", "BertForMaskedLM"), ("fill-mask", "BertForMaskedLM"), ("feature-extraction", "BertModel"),
     ("sequence-classification", "BertForSequenceClassification")],
)  # fmt: skip
def test_task_chooses_the_class(saved, task, name):
    assert open_source(str(saved), task=task).model_class.__name__ == name


def test_every_listed_task_is_known(saved):
    for task in tasks():
        try:
            open_source(str(saved), task=task)
        except ConversionError as error:
            assert "has no model class" in error.diagnostics[0].message


@pytest.mark.parametrize(
    ("model", "name"),
    [("org/All-MiniLM-L6-v2", "all_minilm_l6_v2"), ("org/7b", "model_7b"), ("class", "class_model"),
     ("/c/models--org--My.Model/snapshots/0123abc", "my_model")],
)  # fmt: skip
def test_package_name(model, name):
    assert package_name(model) == name and name.isidentifier()


def test_a_model_type_is_not_a_folder_without_a_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bert" / "preset").mkdir(parents=True)
    assert open_source("bert", random_init=True).directory is None
    refused("config-not-found", "bert")


def test_unknown_names():
    refused("no-network", "some-org/no-such-model")
    refused("model-not-found", "./no-such-directory")
    assert "--random-init" in refused("model-not-found", "llama").hint
    assert "llama" in refused("unknown-model-type", "llamma", random_init=True).hint


def test_unknown_fields_and_values():
    assert "hidden_size" in refused("unknown-field", "bert", random_init=True, overrides={"hidden_sze": 1}).hint
    refused("unknown-field", "bert", random_init=True, overrides={"hidden_size.x": 1})
    refused("bad-config", "bert", random_init=True, overrides={"hidden_size": "wide"})
    refused("unknown-task", "bert", random_init=True, task="no-task")
    refused("unknown-task", "bert", random_init=True, task="ctc")


def test_overrides_need_random_weights(saved):
    refused("override-without-random-init", saved, overrides={"hidden_size": 8})


def test_broken_configs(copied):
    edit_config(copied, model_type="no_such_type")
    refused("unknown-model-type", copied)
    edit_config(copied, model_type="bert", architectures=["NoSuchModel"])
    refused("unknown-architecture", copied)
    (copied / "config.json").write_text("{")
    refused("bad-config", copied)
    (copied / "config.json").unlink()
    refused("config-not-found", copied)


def test_code_of_a_repository_needs_the_flag(copied):
    edit_config(copied, model_type="own", auto_map={"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"})
    assert "--trust-remote-code" in refused("remote-code", copied).hint


def test_code_of_a_repository_runs_with_the_flag(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "cache"))
    directory = tmp_path / "own"
    directory.mkdir()
    (directory / "own.py").write_text(
        "import torch\nfrom transformers import PreTrainedConfig, PreTrainedModel\n"
        "class OwnConfig(PreTrainedConfig):\n    model_type = 'own_test_type'\n"
        "class OwnModel(PreTrainedModel):\n    config_class = OwnConfig\n"
    )
    values = {"model_type": "own_test_type", "architectures": ["OwnModel"],
              "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}}  # fmt: skip
    (directory / "config.json").write_text(json.dumps(values))
    refused("remote-code", directory, random_init=True)
    source = open_source(str(directory), random_init=True, trust_remote_code=True)
    assert source.model_class.__name__ == "OwnModel" and source.config.model_type == "own_test_type"


def test_pickles(copied):
    for path in copied.glob("*.safetensors*"):
        path.unlink()
    refused("weights-not-found", copied)
    (copied / "pytorch_model.bin").write_bytes(b"")
    assert "save_pretrained" in refused("pickle-weights", copied).hint


def test_missing_and_truncated_shards(copied):
    first, second, *_ = sorted(copied.glob("*.safetensors"))
    data = second.read_bytes()
    for cut in (data[:-4], data[:20], data[:3], b""):
        second.write_bytes(cut)
        refused("shard-truncated", copied)
    second.write_bytes(len(data).to_bytes(8, "little")[:8] + data[8:])
    refused("shard-truncated", copied)
    second.write_bytes(data)
    open_source(str(copied))
    first.unlink()
    assert first.name in refused("shard-missing", copied).excerpt


def test_index_names_a_tensor_that_no_shard_holds(copied):
    path = copied / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["no.such.tensor"] = next(iter(index["weight_map"].values()))
    path.write_text(json.dumps(index))
    assert "no.such.tensor" in refused("shard-broken", copied).excerpt
    path.write_text("[]")
    refused("index-broken", copied)


def test_read_checkpoint_agrees_with_the_files(tmp_path):
    tensors = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.arange(6.0).reshape(2, 3), "c": torch.zeros(2, 3)}
    save_file(tensors, tmp_path / "model.safetensors")
    found = read_checkpoint(tmp_path)
    assert list(found) == ["a", "b", "c"] and found["a"].shape == (2, 3) and found["a"].dtype == "F32"
    assert same_bytes(found["a"], found["b"], chunk=5) and not same_bytes(found["a"], found["c"], chunk=5)
