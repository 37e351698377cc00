"""The proof of a cached step, and the mutations that turn it red."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

import hf2khc
from hf2khc.capture.source import open_source
from hf2khc.check.proof import CACHED
from hf2khc.driver.fill import with_weights
from hf2khc.driver.proof import prove_package

sys.path.insert(0, str(Path(__file__).parent))

CAUSAL = {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
ANSWERS = {"vocab_size": 97, "d_model": 32, "d_kv": 12, "d_ff": 48, "num_layers": 2, "num_heads": 4}
ANSWERS |= {"num_decoder_layers": 2, "pad_token_id": 0, "decoder_start_token_id": 5}


CONFIGS = {"gpt2": CAUSAL, "t5": ANSWERS}
# Scans, and convolutions over the last positions.
CONFIGS["mamba"] = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 44}


@pytest.fixture(scope="module", params=["gpt2", "t5", "mamba"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Any, Any]:
    """A name, its package, its weights and what it was printed from."""
    from float64_reference import noisy_model

    folder = tmp_path_factory.mktemp(request.param)
    config = AutoConfig.for_model(request.param, **CONFIGS[request.param])
    family = AutoModelForSeq2SeqLM if request.param == "t5" else AutoModelForCausalLM
    model = noisy_model(config, family._model_mapping[type(config)])
    model.config.name_or_path = request.param
    conversion = hf2khc.convert(model, folder / "package", check=False)
    (folder / "weights").mkdir()
    return request.param, folder / "package", with_weights(open_source(model), folder / "weights", 0), conversion


def wrong(package: Path, weights: Any, conversion: Any) -> Iterator[str]:
    proof = prove_package(package, weights, conversion.compiled, ("torch",), 0)
    assert any(row.case.endswith(CACHED) for row in proof.rows)
    return (row.case for row in proof.rows if not row.holds)


MUTATIONS = {
    # What stands in the cache before is not kept.
    "gpt2": [
        ("ops.slice_update(cache[0], start, key)", "ops.slice_update(ops.zeros_like(cache[0]), start, key)"),
        ("cache = (key, value)", "cache = (value, key)"),
    ],
    "t5": [
        # Of another layer.
        ("cross_attention_cache=cross_attention_cache[i]", "cross_attention_cache=cross_attention_cache[1 - i]"),
    ],
    "mamba": [
        ("if cache is None else cache[0]", "if cache is None else 0 * cache[0]"),
        ("[cache[1], ", "[0 * cache[1], "),
        # Behind the first of several tokens.
        ("[-1],", "[0],"),
    ],
}


def test_the_cached_step_holds(made: tuple[str, Path, Any, Any]) -> None:
    assert not list(wrong(*made[1:]))


def test_a_step_that_forgets_turns_it_red(made: tuple[str, Path, Any, Any], tmp_path: Path) -> None:
    name, package, weights, conversion = made
    for number, (old, new) in enumerate(MUTATIONS[name]):
        mutated = tmp_path / str(number)
        shutil.copytree(package, mutated)
        files = [file for file in mutated.rglob("*.py") if old in file.read_text(encoding="utf-8")]
        assert files, old
        for file in files:
            file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
        found = list(wrong(mutated, weights, conversion))
        assert found and all(case.endswith(CACHED) for case in found), new
