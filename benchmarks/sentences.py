"""Embeddings of sentences from a converted encoder, computed from strings, beside transformers'.

`python -m benchmarks.sentences MODEL DIR`: MODEL is the folder that was converted, DIR the package. Ends with 1 where
the two differ by more than 1e-5.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

from hf2khc.process import hide_other_backends

hide_other_backends()
import keras  # noqa: E402
import keras_hub  # noqa: E402
import numpy as np  # noqa: E402

from hf2khc.package import import_package  # noqa: E402

BOUND = 1e-5
SENTENCES = (
    "A cat sits on the mat.",
    "There is a feline on the rug!",
    "Die Katze sitzt auf der Matte.",
    "The stock market fell by 3.5% on Friday 🙁",
)


def embedded(directory: Path) -> np.ndarray:
    """The package's embeddings: the mean over the tokens, of length 1."""
    import_package(directory)
    preset = str(directory / "preset")
    preprocessor = keras_hub.models.TextClassifierPreprocessor.from_preset(preset, sequence_length=32)
    backbone = keras_hub.models.Backbone.from_preset(preset)
    inputs = preprocessor(list(SENTENCES))
    outputs = backbone.predict(inputs, verbose=0)
    return pooled(outputs["sequence_output"], keras.ops.convert_to_numpy(inputs["padding_mask"]))


def expected(model: Path) -> np.ndarray:
    """The embeddings of transformers."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(str(model))(list(SENTENCES), padding=True, return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(str(model))(**inputs).last_hidden_state
    return pooled(states.numpy(), inputs["attention_mask"].numpy())


def pooled(states: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mean of the states that count, of length 1."""
    total = (states * mask[..., None]).sum(axis=1)
    return total / np.linalg.norm(total, axis=-1, keepdims=True)


def main(model: Path, directory: Path) -> int:
    ours, theirs = embedded(directory), expected(model)
    difference = float(np.abs(ours - theirs).max())
    width = max(map(len, SENTENCES))
    print("Cosine similarity of sentences, from strings, with keras_hub alone:\n")
    for sentence, row in zip(SENTENCES, ours @ ours.T, strict=True):
        print(f"  {sentence.ljust(width)}  " + "  ".join(f"{value:5.2f}" for value in row))
    verdict = "equal" if difference <= BOUND else "NOT equal"
    print(f"\nThe embeddings are {verdict} to transformers': largest difference {difference:.1e}, bound {BOUND:.0e}.")
    return 0 if difference <= BOUND else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
