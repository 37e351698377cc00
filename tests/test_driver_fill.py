"""The weight map of a package against its checkpoint: what is consumed, what repeats, what nothing reads."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import Ernie4_5_VLMoeConfig, Ernie4_5_VLMoeModel, GPT2Config, GPT2LMHeadModel

from hf2khc.capture.source import open_source
from hf2khc.diagnostics import ConversionError
from hf2khc.driver.fill import bound_map, check_weights, parameter_counts
from hf2khc.weights.elements import element_problems, parts_listed, unread_parts
from hf2khc.weights.rows import Alias, Row

CONFIG = GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=11, n_positions=7)
EMBEDDING = Row("token_embedding/embeddings", ("transformer.wte.weight",), "x", (), "float32")
POSITIONS = Row("position_embedding/embeddings", ("transformer.wpe.weight",), "x", (), "float32")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A tied model whose file holds the head, too."""
    GPT2LMHeadModel(CONFIG).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
    save_file({**tensors, "other": tensors["transformer.wpe.weight"].clone()}, file, metadata={"format": "pt"})
    return tmp_path


def test_a_tensor_that_repeats_another_is_an_alias(checkpoint: Path) -> None:
    found = bound_map(open_source(str(checkpoint)), checkpoint, [EMBEDDING, POSITIONS])
    assert found.aliases == (Alias("lm_head.weight", "transformer.wte.weight"),)
    listed = {item.hf: item.reason for item in found.not_consumed}
    assert listed["other"] == "no parameter of GPT2LMHeadModel"
    assert "no output" in listed["transformer.ln_f.weight"]
    names = [name for row in found.rows for name in row.hf] + [alias.hf for alias in found.aliases] + list(listed)
    assert sorted(names) == sorted(load_file(checkpoint / "model.safetensors"))


def test_nothing_is_an_alias_of_a_tensor_that_is_not_consumed(checkpoint: Path) -> None:
    found = bound_map(open_source(str(checkpoint)), checkpoint, [POSITIONS])
    assert not found.aliases and {"lm_head.weight", "transformer.wte.weight"} <= {i.hf for i in found.not_consumed}


def test_what_is_read_of_a_tensor_in_part_is_listed_with_the_rest(tmp_path: Path) -> None:
    """The file keeps the router's bias for text and for images in one tensor."""
    text = {
        "vocab_size": 9, "hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "moe_k": 1, "moe_num_experts": 4, "moe_intermediate_size": [4, 4],
        "mlp_layer_types": ["sparse"], "rope_parameters": {"rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
    }  # fmt: skip
    vision = {"depth": 1, "hidden_size": 8, "num_heads": 2, "patch_size": 4, "intermediate_size": 8}
    config = Ernie4_5_VLMoeConfig(text_config=text, vision_config=vision)
    Ernie4_5_VLMoeModel(config).save_pretrained(tmp_path)
    path = "language_model.layers.0.mlp.text_moe.gate.moe_statics.e_score_correction_bias"
    found = bound_map(open_source(str(tmp_path)), tmp_path, [Row("bias", (path,), "x", (), "float32")])
    (read,) = found.rows[0].hf
    rest = [item.part for item in found.not_consumed if item.hf == read]
    assert len(rest) == 1 and not element_problems(found.rows, found.not_consumed)
    assert "4 of 8 elements unused" in element_problems(found.rows)[0]


def test_rows_that_nothing_reads_are_listed(checkpoint: Path) -> None:
    """LongCat's experts that compute nothing have weights, too."""
    source = open_source(str(checkpoint))
    first, last = (
        replace(
            POSITIONS, keras=f"{name}/embeddings", transform=f"slice(x, ({start}, 0), ({n}, 8))", keras_shape=(n, 8)
        )
        for name, start, n in (("first", 0, 3), ("last", 5, 2))
    )
    path = POSITIONS.sources[0]
    shaped = [replace(row, hf=(path,), hf_shapes=((7, 8),)) for row in (first, last)]
    unread = unread_parts(shaped)
    assert [part.transform for part in unread] == ["slice(x, (3, 0), (2, 8))"]
    found = bound_map(source, checkpoint, [first, last, EMBEDDING], unread)
    assert not element_problems(found.rows, found.not_consumed) and element_problems(found.rows)
    used = 11 * 8 + 5 * 8
    assert parameter_counts(source, found.rows, unread)["keras"] == used
    with pytest.raises(ConversionError, match="parameter-count"):
        parameter_counts(source, found.rows)
    # Two gaps, columns, or rows that are used twice beside them are no part that a model does without.
    assert not unread_parts([replace(shaped[0], transform="slice(x, (1, 0), (3, 8))")])
    assert not unread_parts([replace(shaped[0], transform="slice(x, (0, 0), (7, 3))", keras_shape=(7, 3))])
    assert not unread_parts([*shaped[:1], *shaped[:1]])


def test_rows_that_nothing_reads_may_be_tensors_of_their_own_in_the_file() -> None:
    tensors = {"hf": ("a", "b", "c"), "hf_shapes": ((2, 8),) * 3}
    part = Row("", ("all",), "slice(concatenate([x0, x1, x2], axis=0), (3, 0), (3, 8))", (3, 8), "float32", **tensors)
    assert [*parts_listed(part)] == [("b", "slice(x, (1, 0), (1, 8))"), ("c", "slice(x, (0, 0), (2, 8))")]
    # Of columns it is not said which: the law about elements refuses them.
    columns = replace(part, transform="slice(concatenate([x0, x1, x2], axis=1), (0, 8), (2, 4))", keras_shape=(2, 4))
    assert not [*parts_listed(columns)]


def test_counts_agree_or_it_is_an_error(checkpoint: Path) -> None:
    source = open_source(str(checkpoint))
    rows = bound_map(source, checkpoint, [EMBEDDING, POSITIONS]).rows
    constant = Row("mask/values", (), "x", (5,), "float32", constant="mask")
    found = parameter_counts(source, [*rows, constant])
    total = sum(p.numel() for p in GPT2LMHeadModel(CONFIG).parameters())
    used = 11 * 8 + 7 * 8
    assert found == {"transformers": total, "keras": used + 5, "not consumed": total - used, "constants": 5}
    with pytest.raises(ConversionError, match="parameter-count") as refused:
        parameter_counts(source, [replace(rows[0], keras_shape=(11, 7)), rows[1]])
    assert refused.value.diagnostics[0].excerpt == f"transformer.wte.weight: 88 elements, 77 in {rows[0].keras}"


def test_what_is_computed_from_several_tensors_counts_once(checkpoint: Path) -> None:
    source = open_source(str(checkpoint))
    norm, bias = "transformer.ln_f.weight", "transformer.ln_f.bias"
    total = sum(p.numel() for p in GPT2LMHeadModel(CONFIG).parameters())
    summed = Row("sum", (norm, bias), "x0 + x1", (8,), "float32")
    assert parameter_counts(source, [summed]) == {
        "transformers": total, "keras": 8, "not consumed": total - 16, "merged": 8,
    }  # fmt: skip
    # What is only moved keeps its elements, and what goes elsewhere as well is not merged.
    with pytest.raises(ConversionError, match="parameter-count"):
        parameter_counts(source, [replace(summed, transform="concatenate([x0, x1], axis=0)")])
    assert "merged" not in parameter_counts(source, [summed, Row("bias", (bias,), "x", (8,), "float32")])


def test_weights_that_cannot_be_used_are_refused_before_the_compile(checkpoint: Path, tmp_path: Path) -> None:
    source = open_source(str(checkpoint))
    check_weights(source, tmp_path)
    wider = copy.deepcopy(source.config)
    wider.n_embd = 16
    with pytest.raises(ConversionError, match="weights-do-not-fit"):
        check_weights(replace(source, config=wider), tmp_path)
    deep = open_source("gpt2", random_init=True, overrides={"n_embd": 1 << 20, "n_head": 1, "n_layer": 1})
    with pytest.raises(ConversionError, match=r"not-enough-memory[\s\S]*--set"):
        check_weights(deep, tmp_path)
