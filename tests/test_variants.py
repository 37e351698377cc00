"""Variants of a config come out right, as nothing is a template: the compiled program against transformers itself."""

import pytest
from float64_reference import error_against, lowered, noisy_model
from tiny_models import MODELS, albert, bert, gemma2, gpt2, llama, qwen3, t5, vit
from transformers import (
    AlbertForMaskedLM,
    AlbertModel,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    Gemma2Model,
    GPT2LMHeadModel,
    GPT2Model,
    GPTNeoXConfig,
    GPTNeoXModel,
    LlamaForCausalLM,
    LlamaModel,
    MistralConfig,
    MistralModel,
    Qwen3Model,
    T5ForConditionalGeneration,
    T5Model,
    ViTForImageClassification,
    ViTModel,
)

from hf2khc.ir.text import format_program, parse_program

# Both sides compute in float64; they differ by the order of summation.
TOLERANCE = 1e-11


def check(config, model_class) -> None:
    captured, program = lowered(config, model_class)
    assert error_against(noisy_model(config, model_class), captured, program) < TOLERANCE


@pytest.mark.parametrize("name", MODELS)
def test_architecture(name):
    check(*MODELS[name])


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu", "quick_gelu"])
def test_activation(activation):
    check(gpt2(activation_function=activation, n_layer=1), GPT2Model)


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_pytorch_tanh", "relu2", "tanh"])
def test_activation_of_an_encoder(activation):
    check(bert(hidden_act=activation, num_hidden_layers=1), BertModel)


ROPES = {
    "theta": {"rope_type": "default", "rope_theta": 500.0},
    "linear": {"rope_type": "linear", "factor": 3.0, "rope_theta": 10000.0},
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16, "rope_theta": 500.0,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 12, "rope_theta": 10000.0},
}  # fmt: skip


@pytest.mark.parametrize("rope", ROPES)
def test_rope(rope):
    check(llama(rope_parameters=ROPES[rope], head_dim=16, num_hidden_layers=2), LlamaModel)


def test_frequencies_that_hang_on_the_values_of_an_input_are_those_of_one_length_and_it_is_said():
    config = llama(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0})
    captured, program = lowered(config, LlamaModel)
    assert any(note.startswith("fixed length seq = 11") for note in captured.notes)
    assert all(isinstance(dim, int) for node in program.main.inputs for dim in node.tensor.shape)


VARIANTS = {
    "gpt2 epsilon, inner size": (gpt2(layer_norm_epsilon=3e-3, n_inner=37), GPT2Model),
    "gpt2 scores by layer": (gpt2(scale_attn_by_inverse_layer_idx=True, scale_attn_weights=False), GPT2Model),
    "gpt2 untied head": (gpt2(tie_word_embeddings=False), GPT2LMHeadModel),
    "bert epsilon": (bert(layer_norm_eps=2e-2), BertModel),
    "bert classifier": (bert(num_labels=5), BertForSequenceClassification),
    "bert tied head": (bert(), BertForMaskedLM),
    "llama biases": (llama(attention_bias=True, mlp_bias=True, rms_norm_eps=1e-2), LlamaModel),
    "llama head_dim": (llama(head_dim=14, hidden_act="gelu_new"), LlamaModel),
    "llama as many keys as queries": (llama(num_key_value_heads=4), LlamaModel),
    "llama one key": (llama(num_key_value_heads=1), LlamaModel),
    "llama tied head": (llama(tie_word_embeddings=True), LlamaForCausalLM),
    "llama untied head": (llama(tie_word_embeddings=False), LlamaForCausalLM),
    "window": (MistralConfig(**{**llama().to_dict(), "sliding_window": 5}), MistralModel),
    "no window": (MistralConfig(**{**llama().to_dict(), "sliding_window": None}), MistralModel),
    "qwen3 biases": (qwen3(attention_bias=True), Qwen3Model),
    "qwen3 windows in some layers": (
        qwen3(use_sliding_window=True, sliding_window=5, max_window_layers=1), Qwen3Model,
    ),
    "rotation of a part of the head, parallel blocks": (
        GPTNeoXConfig(vocab_size=61, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=52),
        GPTNeoXModel,
    ),
    "gemma2 without caps": (
        gemma2(attn_logit_softcapping=None, layer_types=["full_attention"] * 4, rms_norm_eps=1e-2), Gemma2Model,
    ),
    "vit without biases": (vit(qkv_bias=False, layer_norm_eps=1e-2, hidden_act="silu"), ViTModel),
    "vit classifier": (vit(num_labels=5, image_size=24, patch_size=4), ViTForImageClassification),
    "t5 gated": (t5(feed_forward_proj="gated-gelu", layer_norm_epsilon=1e-2), T5Model),
    "t5 untied head": (t5(tie_word_embeddings=False), T5ForConditionalGeneration),
    "t5 tied head": (t5(tie_word_embeddings=True), T5ForConditionalGeneration),
    "albert groups": (albert(num_hidden_groups=3, inner_group_num=2, hidden_act="gelu"), AlbertModel),
    "albert head": (albert(), AlbertForMaskedLM),
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_variant(name):
    check(*VARIANTS[name])


# --- the check itself ------------------------------------------------------------------------------------------------

MUTATIONS = {
    "an epsilon": ("epsilon=1e-05", "epsilon=1.01e-05"),
    "an activation": ("approximate=true", "approximate=false"),
    "a norm that is skipped": ("= call(%hidden_states_3, graph=", "= call(%hidden_states_2, graph="),
    "a mask that sees one key more": ("ops.less_equal", "ops.less"),
    "another slice of a fused kernel": ('("slice", 40, 80, none)', '("slice", 41, 81, none)'),
    "another scale": ("x2=0.31622776601683794", "x2=0.3162"),
    "a layer less": ("start=0, count=3", "start=0, count=2"),
}  # fmt: skip


@pytest.fixture(scope="module")
def correct():
    config, model_class = MODELS["gpt2"]
    return noisy_model(config, model_class), *lowered(config, model_class)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_program_is_found(correct, name):
    model, captured, program = correct
    old, new = MUTATIONS[name]
    text = format_program(program)
    assert old in text
    assert error_against(model, captured, parse_program(text.replace(old, new))) > 100 * TOLERANCE


@pytest.mark.parametrize(
    ("one", "other"),
    [("h.0.ln_1.weight", "h.0.ln_2.weight"), ("h.2.attn.c_proj.bias", "h.2.mlp.c_proj.bias"),
     ("h.1.attn.c_attn.bias", "h.0.attn.c_attn.bias"), ("ln_f.bias", "h.0.ln_1.bias")],
)  # fmt: skip
def test_swapped_weights_are_found(correct, one, other):
    assert error_against(*correct) < TOLERANCE
    assert error_against(*correct, {one: other, other: one}) > 100 * TOLERANCE
