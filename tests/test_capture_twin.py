"""Twins differ in every number and in nothing else."""

import pytest
import torch
import transformers

from hf2khc.capture.build import build_meta, materialise
from hf2khc.capture.export import export
from hf2khc.capture.inputs import input_spec, trace_sizes
from hf2khc.capture.truncate import truncate
from hf2khc.capture.twin import twin_config
from hf2khc.capture.twin_fields import get_field, numeric_fields, set_field
from hf2khc.capture.twin_search import Search

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 44,
    "vocab_size": 150,
}
GROUPED = {**SMALL, "num_key_value_heads": 2}
T5 = {"d_model": 32, "d_ff": 44, "d_kv": 8, "num_heads": 4, "num_layers": 3, "vocab_size": 150}
SWIN = {"embed_dim": 12, "depths": [1, 1], "num_heads": [2, 4], "image_size": 56}
CLIP = {"text_config": SMALL, "vision_config": {**SMALL, "image_size": 32, "patch_size": 8}, "projection_dim": 28}
VISION = {**SMALL, "image_size": 32, "patch_size": 4}
MODELS = {
    "gpt2": (transformers.GPT2LMHeadModel, transformers.GPT2Config(n_embd=32, n_layer=3, n_head=4, vocab_size=150)),
    "bert": (transformers.BertForMaskedLM, transformers.BertConfig(**SMALL)),
    "llama": (transformers.LlamaForCausalLM, transformers.LlamaConfig(**GROUPED)),
    "qwen3": (transformers.Qwen3Model, transformers.Qwen3Config(**GROUPED, head_dim=16)),
    "gemma2": (transformers.Gemma2Model, transformers.Gemma2Config(**GROUPED, head_dim=16)),
    "vit": (transformers.ViTModel, transformers.ViTConfig(**VISION)),
    "t5": (transformers.T5Model, transformers.T5Config(**T5)),
    "albert": (transformers.AlbertModel, transformers.AlbertConfig(**SMALL, embedding_size=24)),
    "clip": (transformers.CLIPModel, transformers.CLIPConfig(**CLIP)),
    "swin": (transformers.SwinModel, transformers.SwinConfig(**SWIN)),
}  # fmt: skip


def twin_of(name):
    model_class, config = MODELS[name]
    model = build_meta(config, model_class)
    return config, model_class, twin_config(config, model_class, input_spec(model))


@pytest.mark.parametrize("name", MODELS)
def test_every_number_changes_and_the_structure_stays(name):
    config, model_class, twin = twin_of(name)
    for field in numeric_fields(config):
        if field.path not in twin.unchanged:
            assert get_field(twin.config, field.path) != field.value, field.path
    assert not twin.unchanged
    real, other = build_meta(config, model_class), build_meta(twin.config, model_class)
    assert list(real.state_dict()) == list(other.state_dict())
    shapes, others = ({k: v.shape for k, v in model.state_dict().items()} for model in (real, other))
    assert sum(shapes[key] != others[key] for key in shapes) > 0.9 * len(shapes)


def test_the_twin_is_captured_like_the_model():
    config, model_class, twin = twin_of("gemma2")
    targets = []
    for each in (config, twin.config):
        model = build_meta(each, model_class)
        truncate(model)
        materialise(model)
        spec = input_spec(model)
        captured = export(model, spec, trace_sizes(model, spec))
        targets.append([str(node.target) for node in captured.program.graph.nodes])
    assert targets[0] == targets[1]


def test_large_dimensions_of_a_twin_are_distinct():
    _, _, twin = twin_of("qwen3")
    config = twin.config
    names = ("hidden_size", "intermediate_size", "vocab_size", "head_dim", "num_attention_heads", "num_key_value_heads",
             "max_position_embeddings")  # fmt: skip
    values = [getattr(config, name) for name in names]
    assert len(set(values)) == len(values)
    # Only so does a product of heads and their size differ from the width.
    assert config.head_dim * config.num_attention_heads != config.hidden_size


def test_ratios_of_grouping_stay():
    for name, grouped in (("llama", True), ("gemma2", True)):
        config = twin_of(name)[2].config
        assert (config.num_attention_heads > config.num_key_value_heads) == grouped
        assert config.num_attention_heads % config.num_key_value_heads == 0
    model_class, _ = MODELS["llama"]
    config = transformers.LlamaConfig(**SMALL)
    twin = twin_config(config, model_class, input_spec(build_meta(config, model_class))).config
    assert twin.num_attention_heads == twin.num_key_value_heads != config.num_attention_heads


def test_a_window_shows_at_the_length_of_a_trace():
    _, model_class, twin = twin_of("gemma2")
    model = build_meta(twin.config, model_class)
    assert twin.config.sliding_window < trace_sizes(model, input_spec(model))["seq"]


def test_depth_and_switches_stay():
    config, _, twin = twin_of("gemma2")
    for name in ("num_hidden_layers", "layer_types", "hidden_activation", "attention_bias", "tie_word_embeddings"):
        assert getattr(twin.config, name) == getattr(config, name), name


def test_the_users_config_is_not_touched():
    config = transformers.LlamaConfig(**GROUPED)
    before = config.to_dict()
    twin_config(config, transformers.LlamaModel, input_spec(build_meta(config, transformers.LlamaModel)))
    assert config.to_dict() == before


class Stubborn(transformers.LlamaModel):
    """Takes no other vocabulary, and runs only where the intermediate size is a multiple of 11."""

    def __init__(self, config):
        if config.vocab_size != 150:
            raise ValueError("no other vocabulary")
        super().__init__(config)

    def forward(self, *args, **kwargs):
        if self.config.intermediate_size % 11:
            raise ValueError("not a multiple of 11")
        return super().forward(*args, **kwargs)


def test_what_a_model_refuses_is_reported_and_the_rest_changes():
    config = transformers.LlamaConfig(**GROUPED)
    twin = twin_config(config, Stubborn, input_spec(build_meta(config, Stubborn)))
    assert list(twin.unchanged) == ["vocab_size"] and "no other vocabulary" in twin.unchanged["vocab_size"]
    assert twin.config.intermediate_size in (22, 88)
    assert twin.config.hidden_size != 32 and twin.config.rms_norm_eps != config.rms_norm_eps


def test_fields_that_must_stay_equal_change_together():
    # A projection exists only where the two sizes differ.
    config = transformers.ConvBertConfig(**SMALL, embedding_size=32)
    twin = twin_config(config, transformers.ConvBertModel, input_spec(build_meta(config, transformers.ConvBertModel)))
    assert twin.config.embedding_size == twin.config.hidden_size != 32
    assert not twin.unchanged.keys() & {"embedding_size", "hidden_size", "num_attention_heads"}


def test_an_entry_of_a_list_changes_with_what_it_must_equal():
    # A projection exists only where the last convolution is not as wide as the rest.
    config = transformers.SEWConfig(
        **SMALL, squeeze_factor=2, conv_dim=(16, 32), conv_stride=(5, 2), conv_kernel=(10, 3),
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    twin = twin_config(config, transformers.SEWModel, input_spec(build_meta(config, transformers.SEWModel)))
    assert twin.config.conv_dim[-1] == twin.config.hidden_size != 32
    assert not twin.unchanged.keys() & {"conv_dim", "hidden_size", "num_attention_heads"}


def test_size_of_a_head_that_is_no_field_changes_too():
    config = transformers.GPT2Config(n_layer=2, n_embd=32, n_head=4, vocab_size=128, n_positions=64)
    first = twin_config(config, transformers.GPT2Model, input_spec(build_meta(config, transformers.GPT2Model))).config
    second = twin_config(first, transformers.GPT2Model, input_spec(build_meta(first, transformers.GPT2Model))).config
    sizes = [c.n_embd // c.n_head for c in (config, first, second)]
    assert sizes[0] != sizes[1] != sizes[2]


def test_what_layers_have_of_their_own_keeps_its_value():
    """As an attribute of the whole config it is refused: it may be meant for one layer or for all."""
    config = transformers.LlamaConfig(**SMALL, per_layer_config={1: {"intermediate_size": 40}})
    with pytest.raises(RuntimeError):
        config.intermediate_size  # noqa: B018
    assert {field.path: field.value for field in numeric_fields(config)}["intermediate_size"] == 44
    assert get_field(config, "intermediate_size") == 44
    set_field(config, "intermediate_size", 48)
    assert get_field(config, "intermediate_size") == 48 and config.per_layer_config[1].intermediate_size == 40


@pytest.mark.parametrize("name", MODELS)
def test_what_is_equal_by_chance_is_told_apart(name):
    config, _, twin = twin_of(name)
    whole = [field for field in numeric_fields(config) if type(field.value) is int]
    pairs = [(field.value, get_field(twin.config, field.path)) for field in whole]
    assert len(set(pairs)) == len(pairs), sorted(zip(pairs, (field.path for field in whole), strict=True))


class Changing(transformers.GPT2Model):
    """Puts another module in the place of one when it first runs, as a model with sparse attention may."""

    def forward(self, *args, **kwargs):
        self.drop = torch.nn.Identity()
        return super().forward(*args, **kwargs)


def test_a_model_that_changes_as_it_runs_has_a_twin():
    config = MODELS["gpt2"][1]
    twin = twin_config(config, Changing, input_spec(build_meta(config, Changing)))
    assert twin.changed and not twin.unchanged


def test_a_mixture_of_experts_runs_with_every_candidate():
    """Its kernel has no shapes in float32: what does not fit together would be found by the trace alone."""
    config = transformers.MixtralConfig(**GROUPED, num_local_experts=4)
    search = Search(config, transformers.MixtralModel, ("input_ids", "attention_mask"), ())
    assert search.runs
    assert not search.accept({"num_key_value_heads": 3})


def test_fields_whose_products_are_equal_change_in_proportion(monkeypatch):
    """Mamba 2 does not run where `expand * hidden_size` is not `num_heads * head_dim`."""
    config = transformers.Mamba2Config(
        hidden_size=32, num_heads=12, head_dim=8, expand=3, num_hidden_layers=1, vocab_size=50, n_groups=1
    )
    spec = input_spec(build_meta(config, transformers.Mamba2Model))
    twin = twin_config(config, transformers.Mamba2Model, spec)
    assert {"hidden_size", "num_heads"} <= twin.changed.keys()
    changed = twin.config
    assert changed.expand * changed.hidden_size == changed.num_heads * changed.head_dim
    monkeypatch.setattr("hf2khc.capture.twin_search.MOST_BALANCED", 0)
    assert "hidden_size" in twin_config(config, transformers.Mamba2Model, spec).unchanged


def test_what_changes_in_proportion_takes_its_equals_along():
    """As many heads of keys as of queries stay as many: groups of heads would be another program."""
    config = transformers.MixtralConfig(
        **{**GROUPED, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8}
    )
    search = Search(config, transformers.MixtralModel, ("input_ids", "attention_mask"), ())
    tried = {"num_attention_heads": 12, "num_key_value_heads": 12, "hidden_size": 48}
    found = [values for values in search._balanced([tried]) if values.get("num_attention_heads") == 12]
    assert found and all(values["num_key_value_heads"] == 12 for values in found)


def test_how_many_tokens_there_are_changes_and_their_ids_do_not():
    config = transformers.Blip2QFormerConfig()
    config.num_query_tokens, config.image_token_index, config.image_tokens = 32, 7, 9
    names = {field.name for field in numeric_fields(config)}
    assert "num_query_tokens" in names and not names & {"image_token_index", "image_tokens", "pad_token_id"}


class Branching(transformers.LlamaModel):
    """Computes something else where the intermediate size is less than 80, with the same modules."""

    def forward(self, *args, **kwargs):
        found = super().forward(*args, **kwargs)
        if self.config.intermediate_size < 80:
            found.last_hidden_state = found.last_hidden_state.tanh()
        return found


def test_a_twin_runs_the_same_operations():
    config = transformers.LlamaConfig(**GROUPED)
    twin = twin_config(config, Branching, input_spec(build_meta(config, Branching)))
    assert not twin.unchanged and twin.config.intermediate_size < 80
    config.intermediate_size = 88
    twin = twin_config(config, Branching, input_spec(build_meta(config, Branching)))
    assert not twin.unchanged and twin.config.intermediate_size > 88


class Normed(transformers.GPT2Model):
    def __init__(self, config):
        super().__init__(config)
        self.wpe = torch.nn.utils.parametrizations.weight_norm(self.wpe)


def test_a_model_with_a_parametrised_module_has_a_twin():
    """torch makes a class for each such module: wav2vec 2.0 has a convolution of that kind."""
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=150)
    twin = twin_config(config, Normed, input_spec(build_meta(config, Normed)))
    assert {"n_embd", "vocab_size"} <= twin.changed.keys()


def test_of_two_fields_that_fail_together_the_other_may_change():
    """MarkupLM looks up the tag of padding, so the table of tags has to be longer than that."""
    config = transformers.MarkupLMConfig(**SMALL, max_depth=3)
    model_class = transformers.MarkupLMModel
    found = twin_config(config, model_class, input_spec(build_meta(config, model_class)))
    assert found.config.tag_pad_id < found.config.max_xpath_tag_unit_embeddings
    assert found.config.subs_pad_id < found.config.max_xpath_subs_unit_embeddings
    assert found.changed.keys() & {"tag_pad_id", "max_xpath_tag_unit_embeddings"}
    assert any("does not run with it: IndexError" in reason for reason in found.unchanged.values())


@pytest.mark.parametrize("name", ["bert", "qwen3", "vit"])
def test_a_second_twin_does_not_come_back_to_the_real_model(name):
    config, model_class, first = twin_of(name)
    spec = input_spec(build_meta(config, model_class))
    second = twin_config(first.config, model_class, spec, apart=config)
    back = {path for path in second.changed if get_field(second.config, path) == get_field(config, path)}
    assert not back and first.changed.keys() <= second.changed.keys()


def test_where_shapes_alone_do_not_run_the_model_a_twin_runs_in_numbers():
    """A width that the code has as well: shapes alone stop before, at a branch on data."""
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=150, n_inner=44)

    class Narrow(transformers.GPT2Model):
        def forward(self, input_ids, attention_mask=None):
            if self.wte.weight.device.type == "cpu" and type(input_ids) is torch.Tensor:
                assert self.h[0].mlp.c_fc.weight.shape[1] == 44
            else:
                raise NotImplementedError("not in shapes alone")
            return super().forward(input_ids, attention_mask=attention_mask)

    found = twin_config(config, Narrow, input_spec(build_meta(config, Narrow)))
    assert found.config.n_inner == 44 and "does not run with it: AssertionError" in found.unchanged["n_inner"]
    assert {"n_embd", "vocab_size", "n_head"} <= found.changed.keys()


def test_heads_of_a_second_twin_have_a_size_of_their_own():
    """No field has it, so nothing else keeps it from coming back to that of the model."""
    config, model_class, first = twin_of("bert")
    spec = input_spec(build_meta(config, model_class))
    second = twin_config(first.config, model_class, spec, apart=config)
    sizes = {c.hidden_size // c.num_attention_heads for c in (config, first.config, second.config)}
    assert len(sizes) == 3


def test_inputs_with_a_size_that_the_real_ones_do_not_have_are_refused():
    """Such as features that examples show: where the config counts them, another number would make them free."""
    search = Search(transformers.LlamaConfig(**GROUPED), transformers.LlamaModel, ("input_ids", "attention_mask"), ())
    assert search.accept({"intermediate_size": 48})
    search.sizes = {"batch": 2}
    assert not search.accept({"intermediate_size": 64}) and "inputs" in search.reason
