"""Models without weights hold what a loaded model holds, parameters' values aside."""

import pytest
import torch
import transformers
from torch import nn

from hf2khc.capture.build import build, build_meta, configs, materialise
from hf2khc.diagnostics import ConversionError

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 40}
T5 = {"d_model": 16, "d_ff": 24, "d_kv": 8, "num_heads": 2, "num_layers": 2, "vocab_size": 40}
SWIN = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "image_size": 32}
ROPE = {"rope_theta": 10000.0, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
MODELS = {
    "gpt2": (transformers.GPT2LMHeadModel, transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=40)),
    "bert": (transformers.BertModel, transformers.BertConfig(**SMALL)),
    "llama-yarn": (transformers.LlamaForCausalLM, transformers.LlamaConfig(**SMALL, rope_parameters=ROPE)),
    "gemma3": (transformers.Gemma3ForCausalLM, transformers.Gemma3TextConfig(**SMALL, head_dim=8)),
    "t5": (transformers.T5Model, transformers.T5Config(**T5)),
    "clip": (
        transformers.CLIPModel,
        transformers.CLIPConfig(
            text_config=SMALL, vision_config={**SMALL, "image_size": 16, "patch_size": 8}, projection_dim=12
        ),
    ),
    "swin": (transformers.SwinModel, transformers.SwinConfig(**SWIN)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_build_agrees_with_the_real_model(name):
    model_class, config = MODELS[name]
    real, built = model_class(config), build(config, model_class)
    shapes = {path: (value.shape, value.dtype) for path, value in real.state_dict().items()}
    assert {path: (value.shape, value.dtype) for path, value in built.state_dict().items()} == shapes
    expected = dict(real.named_non_persistent_buffers())
    found = dict(built.named_non_persistent_buffers())
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        assert torch.equal(found[path], value), path


def test_build_is_ready_to_trace():
    config = transformers.T5Config(**T5)
    config.dtype = torch.bfloat16
    model = build(config, transformers.T5Model)
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    assert not any(part.use_cache for part in configs(model.config))
    assert config.use_cache, "the user's config is not touched"


def test_shared_parameters_stay_shared():
    model = build(MODELS["gpt2"][1], transformers.GPT2LMHeadModel)
    assert model.lm_head.weight is model.transformer.wte.weight


def test_parameters_take_no_memory():
    config = transformers.LlamaConfig(
        hidden_size=8192, intermediate_size=28672, num_hidden_layers=4, num_attention_heads=64
    )
    before = resident()
    build(config, transformers.LlamaForCausalLM)
    assert resident() - before < 200 << 20


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


class Forgetful(transformers.PreTrainedModel):
    """Its buffers are set in the constructor and nowhere else, so loading does not restore them."""

    config_class = transformers.BertConfig

    def __init__(self, config):
        super().__init__(config)
        self.inner = nn.Linear(3, 3)
        self.inner.register_buffer("ramp", torch.arange(5.0), persistent=False)
        self.inner.plain = torch.arange(3)
        self.post_init()


def test_buffers_that_initialisation_leaves_out_are_taken_from_a_real_model():
    model = build(transformers.BertConfig(), Forgetful)
    assert torch.equal(model.inner.ramp, torch.arange(5.0)) and torch.equal(model.inner.plain, torch.arange(3))


def test_left_out_buffers_would_be_wrong_otherwise(monkeypatch):
    monkeypatch.setattr("hf2khc.capture.build._take_from_real", lambda *_: None)
    assert not torch.equal(build(transformers.BertConfig(), Forgetful).inner.ramp, torch.arange(5.0))


def test_config_that_does_not_build():
    config = transformers.BertConfig(**SMALL)
    config.num_attention_heads = 3
    with pytest.raises(ConversionError, match="cannot-build"):
        build(config, transformers.BertModel)


def test_meta_model_lies_on_meta():
    model = build_meta(MODELS["bert"][1], transformers.BertModel)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert materialise(model) is model
