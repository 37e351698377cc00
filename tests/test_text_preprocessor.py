"""The printed preprocessors: what they make of text, in Python and in tf.data, is what transformers makes of it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from text_packages import text_package
from text_vocabularies import KINDS, byte_fallback_bpe, byte_level_bpe, unigram, word_piece

TEXTS = ["The quick brown fox", "größe", "", "x " * 30]


def array(value: Any) -> np.ndarray:
    return np.asarray(value)


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    theirs = byte_fallback_bpe()
    module = text_package(tmp_path_factory.mktemp("causal"), "text_causal", theirs, "CausalLMPreprocessor")
    return theirs, module.LlamaCausalLMPreprocessor(module.LlamaTokenizer(**module.arguments), sequence_length=12)


def test_a_prompt_is_what_transformers_gives_to_generate(causal: tuple[Any, Any]) -> None:
    theirs, ours = causal
    expected = theirs(TEXTS, padding="max_length", truncation=True, max_length=20, padding_side="right")
    found = ours.generate_preprocess(TEXTS, sequence_length=20)
    np.testing.assert_array_equal(array(found["token_ids"]), expected["input_ids"])
    np.testing.assert_array_equal(array(found["padding_mask"]), expected["attention_mask"])
    ours.add_start_token = False
    assert array(ours.generate_preprocess("x")["token_ids"])[0] != theirs.bos_token_id
    ours.add_start_token = True


def test_targets_are_the_next_tokens_and_texts_end(causal: tuple[Any, Any]) -> None:
    theirs, ours = causal
    x, y, weight = ours(TEXTS)
    whole = np.concatenate([array(x["token_ids"]), array(y)[:, -1:]], axis=1)
    np.testing.assert_array_equal(array(y), whole[:, 1:])
    for row, text in zip(whole, TEXTS, strict=True):
        ids = (theirs(text)["input_ids"] + [theirs.eos_token_id])[:13]
        assert row.tolist()[: len(ids) - 1] == ids[:-1] and theirs.eos_token_id in row
    assert array(weight)[2].tolist() == [1] + [0] * 11


def test_generated_tokens_become_text_without_special_tokens(causal: tuple[Any, Any]) -> None:
    theirs, ours = causal
    rows = theirs(TEXTS[:2], padding="max_length", max_length=30, padding_side="right")
    found = ours.generate_postprocess({"token_ids": rows["input_ids"], "padding_mask": rows["attention_mask"]})
    expected = [theirs.decode(ids, skip_special_tokens=True) for ids in rows["input_ids"]]
    assert found == expected


def test_texts_and_pairs_to_classify(tmp_path: Path) -> None:
    theirs = word_piece()
    module = text_package(tmp_path, "text_classes", theirs, "TextClassifierPreprocessor")
    ours = module.LlamaTextClassifierPreprocessor(module.LlamaTokenizer(**module.arguments), sequence_length=11)
    for first, second in ((TEXTS, None), (TEXTS, TEXTS[::-1])):
        expected = theirs(first, second, padding="max_length", truncation=True, max_length=11)
        x, y = ours((first, second) if second else first, [0, 1, 1, 0])
        np.testing.assert_array_equal(array(x["token_ids"]), expected["input_ids"])
        assert list(x) == ["token_ids", "padding_mask"] and y == [0, 1, 1, 0]
    single = ours("The quick")
    assert array(single["token_ids"]).shape == (11,)


def test_masked_tokens_and_their_weights(tmp_path: Path) -> None:
    theirs = word_piece()
    module = text_package(tmp_path, "text_masks", theirs, "MaskedLMPreprocessor")
    ours = module.LlamaMaskedLMPreprocessor(
        module.LlamaTokenizer(**module.arguments), sequence_length=24, mask_selection_rate=0.5, mask_token_rate=1.0
    )  # fmt: skip
    x, y, weight = ours(TEXTS)
    tokens, weight, y = array(x["token_ids"]), array(weight), array(y)
    np.testing.assert_array_equal(y, theirs(TEXTS, padding="max_length", truncation=True, max_length=24)["input_ids"])
    assert weight.sum() > 5 and set(np.unique(weight)) == {0.0, 1.0}
    np.testing.assert_array_equal(tokens == theirs.mask_token_id, weight == 1)
    np.testing.assert_array_equal(tokens[weight == 0], y[weight == 0])


def test_an_answer_begins_with_its_start_tokens(tmp_path: Path) -> None:
    theirs = unigram()
    module = text_package(tmp_path, "text_answers", theirs, "Seq2SeqLMPreprocessor")
    ours = module.LlamaSeq2SeqLMPreprocessor(
        module.LlamaTokenizer(**module.arguments), decoder_start_token_ids=[0, 7], encoder_sequence_length=16,
        decoder_sequence_length=10,
    )  # fmt: skip
    expected = theirs(TEXTS, padding="max_length", truncation=True, max_length=16)
    prompt = ours.generate_preprocess(TEXTS)
    np.testing.assert_array_equal(array(prompt["encoder_token_ids"]), expected["input_ids"])
    assert array(prompt["decoder_token_ids"]).tolist() == [[0, 7] + [theirs.pad_token_id] * 8] * 4
    x, y, weight = ours({"encoder_text": TEXTS, "decoder_text": TEXTS})
    labels = theirs(TEXTS, padding="max_length", truncation=True, max_length=10)
    np.testing.assert_array_equal(array(y), labels["input_ids"])
    np.testing.assert_array_equal(array(weight), labels["attention_mask"])
    np.testing.assert_array_equal(array(x["decoder_token_ids"])[:, 1:], array(y)[:, :-1])
    assert set(array(x["decoder_token_ids"])[:, 0]) == {0}
    answer = {"decoder_token_ids": labels["input_ids"], "decoder_padding_mask": labels["attention_mask"]}
    found = ours.generate_postprocess({name: np.array(rows) for name, rows in answer.items()})
    assert found == theirs.batch_decode(labels["input_ids"], skip_special_tokens=True)


def test_in_a_pipeline_of_tensorflow(tmp_path: Path) -> None:
    kinds = {
        "pipe_causal": (byte_level_bpe(), "CausalLMPreprocessor"),
        "pipe_masked": (word_piece(), "MaskedLMPreprocessor"),
    }
    kinds |= {
        "pipe_answers": (unigram(), "Seq2SeqLMPreprocessor"),
        "pipe_classes": (KINDS["bpe"](), "TextClassifierPreprocessor"),
    }
    for name, (theirs, preprocessor) in kinds.items():
        text_package(tmp_path, name, theirs, preprocessor)
    script = Path(__file__).parent / "text_in_tf_data.py"
    env = {**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, str(script), str(tmp_path), *kinds]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.split() == [f"{name}:same" for name in kinds]
