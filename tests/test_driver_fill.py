"""The weight map of a package against its checkpoint: what is consumed, what repeats, what nothing reads."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from hf2khc.capture.source import open_source
from hf2khc.diagnostics import ConversionError
from hf2khc.driver.fill import bound_map, check_weights, parameter_counts
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


def test_counts_agree_or_it_is_an_error(checkpoint: Path) -> None:
    source = open_source(str(checkpoint))
    rows = bound_map(source, checkpoint, [EMBEDDING, POSITIONS]).rows
    constant = Row("mask/values", (), "x", (5,), "float32", constant="mask")
    found = parameter_counts(source, [*rows, constant])
    total = sum(p.numel() for p in GPT2LMHeadModel(CONFIG).parameters())
    used = 11 * 8 + 7 * 8
    assert found == {"transformers": total, "keras": used + 5, "not consumed": total - used, "constants": 5}
    with pytest.raises(ConversionError, match="parameter-count"):
        parameter_counts(source, [replace(rows[0], keras_shape=(11, 7)), rows[1]])


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
