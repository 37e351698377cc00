"""Text in, text out: converted models with their tokenizers generate what transformers generates, from strings."""

from pathlib import Path
from typing import Any

import pytest
import torch
from float64_reference import noisy_model
from text_vocabularies import byte_level_bpe, unigram

import hf2khc
from hf2khc.cli.main import main

PROMPTS = ["The quick brown", "größe", "x = {y: 1}  "]
LENGTH = 40


def saved(model: Any, tokenizer: Any, folder: Path) -> Path:
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if parameter.ndim > 1 and not any(word in path for word in ("wte", "wpe", "shared")):
                parameter.mul_(8)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path, Path]:
    """A small GPT-2 whose padding is one of the tokens that end a text."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder, tokenizer = tmp_path_factory.mktemp("decoder"), byte_level_bpe()
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=LENGTH)
    model = noisy_model(config, GPT2LMHeadModel)
    model.generation_config.eos_token_id = [tokenizer.pad_token_id, tokenizer.eos_token_id]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    source = saved(model, tokenizer, folder / "small_decoder")
    hf2khc.convert(str(source), folder / "keras", check=False)
    return model, tokenizer, source, folder / "keras"


def test_a_decoder_continues_text(decoder: tuple[Any, Any, Path, Path]) -> None:
    model, tokenizer, _, package = decoder
    task = hf2khc.load(package)
    assert task.preprocessor.sequence_length == LENGTH
    found = task.generate(PROMPTS, max_length=LENGTH)
    for prompt, text in zip(PROMPTS, found, strict=True):
        ids = model.generate(**tokenizer(prompt, return_tensors="pt"), max_length=LENGTH, do_sample=False)[0]
        assert text == tokenizer.decode(ids, skip_special_tokens=True) and len(ids) > len(tokenizer(prompt).input_ids)
    assert task.generate(PROMPTS[0]) == found[0]
    chat = task.preprocessor.tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}])
    assert chat == tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)


def test_prompt_takes_what_is_converted(
    decoder: tuple[Any, Any, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer, source, package = decoder
    assert main([str(source), "-o", str(package), "--prompt", PROMPTS[0], "--quiet"]) == 0
    ids = model.generate(**tokenizer(PROMPTS[0], return_tensors="pt"), max_length=LENGTH, do_sample=False)[0]
    assert capsys.readouterr().out == tokenizer.decode(ids, skip_special_tokens=True) + "\n"


def test_an_encoder_decoder_answers(tmp_path: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = unigram()
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, pad_token_id=0,
        eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    model = noisy_model(config, T5ForConditionalGeneration)
    source = saved(model, tokenizer, tmp_path / "small_encoder_decoder")
    conversion = hf2khc.convert(str(source), tmp_path / "keras", check=False)
    assert not any("text" in note for note in conversion.report.notes)
    found = hf2khc.load(tmp_path / "keras").generate(PROMPTS, max_length=16)
    for prompt, text in zip(PROMPTS, found, strict=True):
        ids = model.generate(**tokenizer(prompt, return_tensors="pt"), max_length=16, do_sample=False)[0]
        assert text == tokenizer.decode(ids, skip_special_tokens=True)
