"""Inputs follow from the forward and the config."""

import numpy as np
import pytest
import transformers

from hf2khc.capture import examples
from hf2khc.capture.build import build_meta
from hf2khc.capture.images import with_image_size
from hf2khc.capture.inputs import Input, input_spec, sample_inputs, symbols, trace_sizes
from hf2khc.capture.prepared import completed
from hf2khc.diagnostics import ConversionError

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 40}
T5 = {"d_model": 16, "d_ff": 24, "d_kv": 8, "num_heads": 2, "num_layers": 2, "vocab_size": 40}


def spec_of(model_class, config):
    return {entry.name: entry for entry in input_spec(build_meta(config, model_class))}


def test_text_encoder():
    spec = spec_of(transformers.BertModel, transformers.BertConfig(**SMALL))
    assert list(spec) == ["input_ids", "attention_mask", "token_type_ids"]
    assert spec["input_ids"].shape == ("batch", "seq") and spec["attention_mask"].role == "mask"
    assert spec["token_type_ids"].fill == ("randint", 0, 2)


def test_token_types_without_a_table_are_no_input():
    config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=40)
    assert list(spec_of(transformers.GPT2Model, config)) == ["input_ids", "attention_mask"]


def test_special_tokens_are_avoided():
    config = transformers.BertConfig(**SMALL, pad_token_id=0, bos_token_id=30, eos_token_id=[5, 31])
    assert spec_of(transformers.BertModel, config)["input_ids"].fill == ("randint", 6, 30)


def test_encoder_decoder():
    spec = spec_of(transformers.T5ForConditionalGeneration, transformers.T5Config(**T5))
    assert list(spec) == ["input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask"]
    assert symbols(tuple(spec.values())) == ("batch", "seq", "decoder_seq")
    assert list(spec_of(transformers.T5EncoderModel, transformers.T5Config(**T5))) == ["input_ids", "attention_mask"]


def test_images():
    config = transformers.ViTConfig(**SMALL, image_size=(24, 32), patch_size=8, num_channels=4)
    assert spec_of(transformers.ViTModel, config)["pixel_values"].shape == ("batch", 4, 24, 32)


def test_a_size_of_images_is_a_field_of_every_config():
    config = transformers.ResNetConfig(num_channels=4)
    sized = with_image_size(config, transformers.ResNetModel)
    assert sized.image_size == 224 and not hasattr(config, "image_size")
    sized.image_size = 96
    assert with_image_size(sized, transformers.ResNetModel) is sized
    assert spec_of(transformers.ResNetModel, sized)["pixel_values"].shape == ("batch", 4, 96, 96)
    text = transformers.BertConfig(**SMALL)
    assert with_image_size(text, transformers.BertModel) is text


def test_two_towers_take_both_and_a_text_model_with_image_tokens_takes_text():
    clip = transformers.CLIPConfig(text_config=SMALL, vision_config={**SMALL, "image_size": 16, "patch_size": 8})
    assert "pixel_values" in spec_of(transformers.CLIPModel, clip)
    vision = {**SMALL, "image_size": 16, "patch_size": 8, "model_type": "clip_vision_model"}
    llava = transformers.LlavaConfig(
        text_config={**SMALL, "model_type": "llama"}, vision_config=vision, image_token_index=9
    )
    spec = spec_of(transformers.LlavaForConditionalGeneration, llava)
    assert list(spec) == ["input_ids", "attention_mask"] and spec["input_ids"].fill == ("randint", 10, 40)


def test_spectrograms():
    config = transformers.WhisperConfig(
        d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        num_mel_bins=8, max_source_positions=12, vocab_size=60000,
    )  # fmt: skip
    assert spec_of(transformers.WhisperModel, config)["input_features"].shape == ("batch", 8, 24)


def test_a_mask_of_a_sound_is_an_input_where_the_model_does_not_do_without():
    """As the encoder of Audio Flamingo 3 is: optional by its signature, and the lengths are computed from it."""

    class Masked(transformers.AudioFlamingo3Encoder):
        def forward(self, input_features, input_features_mask, **kwargs):
            return super().forward(input_features, input_features_mask, **kwargs)

    size = {"num_mel_bins": 8, "max_source_positions": 12, "hidden_size": 16, "num_hidden_layers": 1}
    config = transformers.AudioFlamingo3EncoderConfig(**size, num_attention_heads=2, intermediate_size=24)
    for model_class in (transformers.AudioFlamingo3Encoder, Masked):
        spec = spec_of(model_class, config)
        assert list(spec) == ["input_features", "input_features_mask"]
        mask = spec["input_features_mask"]
        assert (mask.shape, mask.role, mask.fill) == (("batch", 24), "mask", ("ones",))
    wav2vec2 = transformers.Wav2Vec2Config(**SMALL, conv_dim=[8] * 7, num_conv_pos_embeddings=4)
    assert list(spec_of(transformers.Wav2Vec2Model, wav2vec2)) == ["input_values"]


class Odd(transformers.PreTrainedModel):
    config_class = transformers.BertConfig
    main_input_name = "stars"

    def forward(self, stars, moons=None):
        return stars


def test_unknown_inputs_are_refused():
    with pytest.raises(ConversionError, match="inputs-unknown"):
        input_spec(Odd(transformers.BertConfig()))


def test_trace_sizes_occur_nowhere_else():
    config = transformers.BertConfig(**{**SMALL, "intermediate_size": 11, "hidden_size": 26}, type_vocab_size=3)
    model = build_meta(config, transformers.BertModel)
    sizes = trace_sizes(model, input_spec(model))
    dimensions = {size for value in model.state_dict().values() for size in value.shape}
    assert not dimensions & set(sizes.values()) and len(set(sizes.values())) == 2 and min(sizes.values()) >= 2
    assert sizes["seq"] == 13


SPEC = (
    Input("ids", "int64", ("batch", "seq"), ("randint", 3, 9)),
    Input("mask", "int64", ("batch", "seq"), ("ones",), "mask"),
    Input("pixels", "float32", ("batch", 3), ("normal",)),
)


def test_samples():
    samples = sample_inputs(SPEC, {"batch": 4, "seq": 50}, seed=1)
    assert samples["ids"].dtype == np.int64 and set(np.unique(samples["ids"])) == set(range(3, 9))
    assert samples["pixels"].dtype == np.float32 and samples["pixels"].shape == (4, 3)
    assert samples["mask"].all()
    again, other = sample_inputs(SPEC, {"batch": 4, "seq": 50}, 1), sample_inputs(SPEC, {"batch": 4, "seq": 50}, 2)
    assert all(np.array_equal(samples[name], again[name]) for name in samples)
    assert not np.array_equal(samples["ids"], other["ids"])


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_masks_alone(side):
    sizes = {"batch": 4, "seq": 5}
    full, padded = sample_inputs(SPEC, sizes), sample_inputs(SPEC, sizes, padding=side)
    assert np.array_equal(full["ids"], padded["ids"]) and np.array_equal(full["pixels"], padded["pixels"])
    assert padded["mask"].sum(-1).tolist() == [5, 4, 3, 2]
    edge = padded["mask"][1:, 0 if side == "left" else -1]
    assert not edge.any()


def test_every_row_keeps_a_token():
    padded = sample_inputs(SPEC, {"batch": 9, "seq": 3}, padding="left")
    assert padded["mask"].sum(-1).min() >= 1
    with pytest.raises(ValueError, match="padding"):
        sample_inputs(SPEC, {"batch": 2, "seq": 3}, padding="both")


def test_texts_end_where_the_config_has_a_token_for_it():
    config = transformers.LlamaConfig(vocab_size=40, hidden_size=8, num_attention_heads=2, eos_token_id=[900, 7])
    spec = input_spec(build_meta(config, transformers.LlamaModel))
    for padding in ("none", "right", "left"):
        samples = sample_inputs(spec, {"batch": 3, "seq": 6}, padding=padding)
        last = [np.flatnonzero(row)[-1] for row in samples["attention_mask"]]
        assert [row[place] for row, place in zip(samples["input_ids"], last, strict=True)] == [7, 7, 7]
        assert (samples["input_ids"] == 7).sum() == 3


def test_masked_places_have_the_token_for_padding():
    config = transformers.LlamaConfig(vocab_size=40, hidden_size=8, num_attention_heads=2, pad_token_id=3)
    spec = input_spec(build_meta(config, transformers.LlamaModel))
    for padding in ("right", "left"):
        samples = sample_inputs(spec, {"batch": 4, "seq": 6}, padding=padding)
        assert np.array_equal(samples["input_ids"] == 3, samples["attention_mask"] == 0)


def test_what_follows_from_grids_of_patches_is_an_input():
    config = transformers.Qwen2VLConfig(vision_config={"depth": 1, "embed_dim": 32, "num_heads": 2, "patch_size": 4})
    model = build_meta(
        config.vision_config, transformers.models.qwen2_vl.modeling_qwen2_vl.Qwen2VisionTransformerPretrainedModel
    )
    example = {"hidden_states": np.zeros((16, 96), np.float32), "grid_thw": np.array([[1, 4, 4]])}
    spec = {entry.name: entry for entry in input_spec(model, [example])}
    assert spec["cu_seqlens"].fill[1].tolist() == [0, 16]
    assert spec["position_ids"].shape == (16, 2)
    # Another example has its own.
    another = {**example, "grid_thw": np.array([[1, 2, 4], [1, 4, 2]])}
    given = completed(model, tuple(spec.values()), another)
    assert list(given) == list(spec) and given["cu_seqlens"].tolist() == [0, 8, 16]
    assert completed(model, tuple(spec.values()), given) is given


def test_a_text_is_as_long_as_the_places_that_are_given():
    known = {name: Input(name, "int64", ("batch", "seq"), ("randint", 0, 40)) for name in ("input_ids", "words")}
    example = {"input_ids": np.ones((2, 9), np.int64), "marks": np.array([[0, 1, 1, 0, 0, 0, 0, 0, 0]] * 2)}
    spec = {entry.name: entry for entry in examples.spec_of([example], known, frozenset())}
    assert spec["input_ids"].shape == spec["marks"].shape == ("batch", 9)
    # Of another length they say nothing about it, and neither do random numbers of that length.
    for other in (np.array([[0, 1, 1]] * 2), np.random.default_rng(0).normal(size=(2, 9)).astype(np.float32)):
        spec = {e.name: e for e in examples.spec_of([{**example, "marks": other}], known, frozenset())}
        assert spec["input_ids"] == known["input_ids"]
