"""The weight map of a package against its checkpoint: what is consumed, what repeats, what nothing reads."""

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from hf2khc.capture.source import open_source
from hf2khc.driver.fill import bound_map
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
