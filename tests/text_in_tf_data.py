"""A process of the tests: preprocessors in a tf.data pipeline against the same ones in Python.

`python text_in_tf_data.py FOLDER PACKAGE...`: prints `PACKAGE:same` for each.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

TEXTS = ["The quick brown fox", "größe \x00", "", "x " * 30]
LENGTHS = {"Seq2SeqLMPreprocessor": {"encoder_sequence_length": 9, "decoder_sequence_length": 7}}


def main(folder: Path, packages: list[str]) -> None:
    for name in packages:
        check(importlib.import_module(name), folder / f"{name}.json")
        print(f"{name}:same")


def check(module: Any, file: Path) -> None:
    special = [token["content"] for token in json.loads(file.read_text(encoding="utf-8"))["added_tokens"]]
    tokenizer = module.LlamaTokenizer(
        tokenizer=file, end_token=special[1], pad_token=special[0], mask_token=special[-1]
    )
    texts = [*TEXTS, f"a {special[1]} b"]
    data = tf.data.Dataset.from_tensor_slices(texts)
    assert [row.numpy().tolist() for row in data.map(tokenizer)] == tokenizer(texts)
    batch = next(iter(data.batch(len(texts)).map(tokenizer)))
    assert isinstance(batch, tf.RaggedTensor) and batch.to_list() == tokenizer(texts) == tokenizer(tf.constant(texts))
    decoded = next(iter(tf.data.Dataset.from_tensors(batch).map(tokenizer.detokenize)))
    expected = tokenizer.detokenize(tokenizer(texts))
    assert [text.decode() for text in decoded.numpy()] == expected == tokenizer.detokenize(batch)
    (kind,) = [value for key, value in vars(module).items() if key.endswith("Preprocessor")]
    base = kind.__bases__[0].__name__
    options = {"mask_selection_rate": 0.0} if base.startswith("Masked") else {"decoder_start_token_ids": [0]}
    options = options if base.startswith(("Masked", "Seq")) else {}
    preprocessor = kind(tokenizer, **LENGTHS.get(base, {"sequence_length": 9}), **options)
    inputs: Any = {"encoder_text": texts, "decoder_text": texts} if base.startswith("Seq") else texts
    whole = preprocessor(inputs)
    dataset = tf.data.Dataset.from_tensor_slices(inputs)
    same(next(iter(dataset.batch(len(texts)).map(preprocessor))), whole)
    if not base.startswith("Masked"):  # KerasHub's masks of a single text are of another shape
        rows = list(dataset.map(preprocessor))
        same(keras.tree.map_structure(lambda *values: np.stack(values), *rows), whole)


def same(found: Any, expected: Any) -> None:
    for a, b in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
