"""Greedy generation of a package equals that of transformers, token for token, on every backend."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hf2khc
from hf2khc.driver.decode_positions import NoCache

NEW, PROMPTS = 64, (9, 4, 7, 2)
sys.path.insert(0, str(Path(__file__).parent))
_SIZES = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
_ROTARY = {**_SIZES, "intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 12, "max_position_embeddings": 80}
WITHOUT_CACHE = "gpt2_without_cache"
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 97, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": NEW + max(PROMPTS)},
    "llama": _ROTARY,
    "qwen3": _ROTARY,
    # Positions are counted by the mask.
    "opt": {**_SIZES, "ffn_dim": 48, "max_position_embeddings": 80, "word_embed_proj_dim": 32},
    # Windows are much shorter than what is generated.
    "gemma2": {**_ROTARY, "sliding_window": 8, "query_pre_attn_scalar": 12},
    # One layer keeps states, of chunks that are shorter than the prompts; the other one keys and values.
    "bamba": {
        **_ROTARY,
        "num_hidden_layers": 2,
        "attn_layer_indices": [1],
        "mamba_d_head": 8,
        "mamba_n_heads": 8,
        "mamba_d_state": 6,
        "mamba_chunk_size": 4,
    },
}


DECODERS = tuple(CONFIGS)
CONFIGS["t5"] = {"vocab_size": 97, "d_model": 32, "d_kv": 12, "d_ff": 48, "num_layers": 2, "num_heads": 4}
CONFIGS["t5"] |= {"num_decoder_layers": 3, "pad_token_id": 0, "decoder_start_token_id": 5}
# An encoder of sounds.
CONFIGS["whisper"] = {"vocab_size": 97, "d_model": 32, "encoder_layers": 2, "decoder_layers": 3, "num_mel_bins": 8}
CONFIGS["whisper"] |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48}
CONFIGS["whisper"] |= {"decoder_ffn_dim": 48, "max_source_positions": 20, "max_target_positions": 80}
CONFIGS["whisper"] |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 5}
ENCODER_DECODERS = ("t5", "whisper")
ANSWER = 24
SPREAD = 8


def model_of(name: str) -> Any:
    from float64_reference import noisy_model
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSpeechSeq2Seq

    config = AutoConfig.for_model(name, **CONFIGS[name])
    families = {"t5": AutoModelForSeq2SeqLM, "whisper": AutoModelForSpeechSeq2Seq}
    model = noisy_model(config, families.get(name, AutoModelForCausalLM)._model_mapping[type(config)])
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            # Or a token, which the embedding is tied to, is followed by itself for ever.
            if parameter.ndim > 1 and not any(word in path for word in ("embed_tokens", "wte", "wpe", "shared")):
                parameter.mul_(SPREAD)
    model.config.name_or_path = name
    return model


def greedy(model: Any, tokens: np.ndarray) -> np.ndarray:
    """Each row by itself, without padding."""
    found = tokens.copy()
    for row, length in zip(found, PROMPTS, strict=True):
        prompt = torch.from_numpy(row[None, :length].astype("int64"))
        out = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW, do_sample=False, eos_token_id=None,
            pad_token_id=0, use_cache=True,
        )  # fmt: skip
        row[: length + NEW] = out[0].numpy()
    return found


def greedy_answers(model: Any, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Of an encoder-decoder: what comes behind the one token that every answer begins with."""
    from transformers import GenerationMixin

    starts = torch.from_numpy(inputs["decoder_token_ids"][:, :1].astype("int64"))
    if model.main_input_name == "input_features":
        given = {"inputs": torch.from_numpy(inputs["input_features"])}
    else:
        tokens, mask = (torch.from_numpy(inputs[f"encoder_{name}"]).long() for name in ("token_ids", "padding_mask"))
        given = {"input_ids": tokens, "attention_mask": mask}
    # Of the mixin: a class of its own (Whisper) asks for the language and more.
    out = GenerationMixin.generate(
        model, **given, decoder_input_ids=starts, max_new_tokens=ANSWER, do_sample=False, eos_token_id=None,
        pad_token_id=0, use_cache=False,
    )  # fmt: skip
    return out.numpy()


def no_cache(*arguments: Any) -> None:
    raise NoCache("the test says so")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """Packages on disk, and what transformers generates."""
    folder = tmp_path_factory.mktemp("generation")
    tokens = np.random.default_rng(0).integers(3, 97, (len(PROMPTS), max(PROMPTS) + NEW)).astype("int32")
    mask = (np.arange(tokens.shape[1]) < np.array(PROMPTS)[:, None]).astype("int32")
    inputs = {"token_ids": tokens * mask, "padding_mask": mask}
    starts = np.zeros((len(PROMPTS), ANSWER + 1), "int32")
    starts[:, 0] = 5
    begun = np.zeros_like(starts)
    begun[:, 0] = 1
    inputs |= {"encoder_token_ids": (tokens * mask)[:, : max(PROMPTS)], "encoder_padding_mask": mask[:, : max(PROMPTS)]}
    inputs |= {"decoder_token_ids": starts, "decoder_padding_mask": begun}
    inputs |= {"input_features": np.random.default_rng(1).normal(size=(len(PROMPTS), 8, 40)).astype("float32")}
    np.savez(folder / "prompts.npz", **inputs)
    expected = {}
    for name in DECODERS:
        model = model_of(name)
        expected[name] = greedy(model, tokens * mask)
        assert len(set(expected[name][:, max(PROMPTS) :].flatten())) > 20
        conversion = hf2khc.convert(model, folder / name, check=False)
        assert not conversion.compiled.cacheless
    for name in ENCODER_DECODERS:
        model = model_of(name)
        expected[name] = greedy_answers(model, inputs)
        assert len(set(expected[name].flatten())) > 5
        conversion = hf2khc.convert(model, folder / name, check=False)
        assert not conversion.compiled.cacheless
        # Keys and values of what the encoder gave are no work of a step.
        assert conversion.compiled.plan.decoding.once
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf2khc.driver.compile.derive_decoding", no_cache)
        model = model_of("gpt2")
        model.config.name_or_path = WITHOUT_CACHE
        conversion = hf2khc.convert(model, folder / WITHOUT_CACHE, check=False)
    expected[WITHOUT_CACHE] = expected["gpt2"]
    assert conversion.report.notes == ("generation runs the whole model for every token: the test says so",)
    return folder, expected


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_greedy_generation(packages: tuple[Path, dict[str, np.ndarray]], backend: str) -> None:
    pytest.importorskip(backend)
    folder, expected = packages
    env = {**os.environ, "KERAS_BACKEND": backend}
    command = [sys.executable, str(Path(__file__).parent / "generate_many.py"), str(folder), *expected]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    for name, tokens in expected.items():
        with np.load(folder / f"{name}-{backend}.npz") as data:
            found = data["token_ids"]
        for row, (ours, theirs) in enumerate(zip(found, tokens, strict=True)):
            length = PROMPTS[row] + NEW if name in (*DECODERS, WITHOUT_CACHE) else ANSWER + 1
            assert ours[:length].tolist() == theirs[:length].tolist(), f"{name}, row {row}"
