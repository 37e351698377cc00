"""What a package's generation begins with: the model's own generation config in KerasHub's words."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import GenerationConfig, GPT2Config

from hf2khc.capture.generation_defaults import generation_defaults, left_out
from hf2khc.check.proof import CACHED, CANNOT_DECODE, OutputError, Proof
from hf2khc.diagnostics import Diagnostic
from hf2khc.driver.build import _fails_in_cache


def defaults(config: Any = None, directory: Path | None = None) -> dict[str, Any]:
    live = SimpleNamespace(generation_config=config) if config is not None else None
    source = SimpleNamespace(live=live, directory=directory, config=GPT2Config(eos_token_id=5))
    return generation_defaults(source)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options, sampler",
    [
        ({"do_sample": False, "temperature": 0.5}, "greedy"),
        ({"do_sample": True, "top_k": 7}, ("TopKSampler", {"k": 7, "temperature": 1.0})),
        ({"do_sample": True, "top_k": 7, "top_p": 0.8, "temperature": 0.5},
         ("TopPSampler", {"p": 0.8, "k": 7, "temperature": 0.5})),
        ({"do_sample": True, "top_k": 0}, ("RandomSampler", {"temperature": 1.0})),
    ],
)  # fmt: skip
def test_sampler(options: dict[str, Any], sampler: Any) -> None:
    found = defaults(GenerationConfig(eos_token_id=[3, 4], **options))
    named = {"class_name": f"keras_hub>{sampler[0]}", "config": sampler[1]} if isinstance(sampler, tuple) else sampler
    assert found == {"stop_token_ids": [3, 4], "default_sampler": named}
    import keras_hub

    expected = sampler[0] if isinstance(sampler, tuple) else "GreedySampler"
    assert type(keras_hub.samplers.get(found["default_sampler"])).__name__ == expected


def test_where_the_config_comes_from(tmp_path: Path) -> None:
    assert defaults() == {"stop_token_ids": [5], "default_sampler": "greedy"}
    assert defaults(directory=tmp_path)["stop_token_ids"] == [5]
    GenerationConfig(eos_token_id=9).save_pretrained(tmp_path)
    assert defaults(directory=tmp_path)["stop_token_ids"] == [9]
    assert defaults(GenerationConfig())["stop_token_ids"] is None


def left(config: GenerationConfig, **about: Any) -> dict[str, Any]:
    about = {"is_encoder_decoder": False, **about}
    live = SimpleNamespace(generation_config=config)
    return left_out(SimpleNamespace(live=live, directory=None, config=SimpleNamespace(**about)))  # type: ignore[arg-type]


def test_what_a_package_does_not_do_is_named() -> None:
    assert (
        left(GenerationConfig(eos_token_id=3, max_length=9, temperature=0.5, typical_p=0.5, length_penalty=2.0)) == {}
    )
    assert left(GenerationConfig(do_sample=True, typical_p=0.5)) == {"typical_p": 0.5}
    assert left(GenerationConfig(num_beams=4, length_penalty=2.0)) == {"length_penalty": 2.0, "num_beams": 4}
    assert left(GenerationConfig(repetition_penalty=1.0, no_repeat_ngram_size=0, min_length=0)) == {}
    asked = {"no_repeat_ngram_size": 3, "repetition_penalty": 1.2, "suppress_tokens": [1, 2]}
    assert left(GenerationConfig(**asked)) == asked
    forced = GenerationConfig(forced_bos_token_id=0)
    assert left(forced) == {"forced_bos_token_id": 0} and left(forced, is_encoder_decoder=True) == {}


ROW = OutputError("logits", "none padding", "torch", 1.0, 1e-7, 2e-6, 1.0, 9, holds=False)
WHY = Diagnostic("parity", "differs")


def test_a_package_is_written_without_a_cache_only_where_nothing_else_is_wrong() -> None:
    right, cached = replace(ROW, holds=True), replace(ROW, case=f"none padding{CACHED}")
    broken = Diagnostic("package", f"{CANNOT_DECODE}: ValueError")
    assert _fails_in_cache(Proof(False, (right, cached), (), (WHY,)))
    assert _fails_in_cache(Proof(False, (right,), (), (broken,)))
    assert not _fails_in_cache(Proof(True, (right,), ()))
    assert not _fails_in_cache(Proof(False, (ROW, cached), (), (WHY, WHY)))
    assert not _fails_in_cache(Proof(False, (), (), (Diagnostic("package", "from_preset fails"),)))
