"""A process of the tests: an image converter alone and, with tensorflow, in tf.data, against transformers' pixels.

`python image_in_pipelines.py FOLDER PACKAGE ARGUMENTS`: prints `same`, and `alone` where there is no tensorflow.
"""

import ast
import importlib
import os
import sys
from pathlib import Path
from typing import Any

if os.environ["KERAS_BACKEND"] != "tensorflow":
    sys.modules["tensorflow"] = None  # type: ignore[assignment]

import keras
import numpy as np
from image_processors import images


def main(folder: Path, package: str, arguments: str) -> None:
    module: Any = importlib.import_module(package)
    converter = module.ViTImageConverter(**ast.literal_eval(arguments))
    preprocessor = module.ViTImageClassifierPreprocessor(converter)
    pictures = images()
    with np.load(folder / "pixels.npz") as file:
        expected = np.stack([file[name] for name in file.files])
    same(converter(pictures), expected)
    same(preprocessor(pictures)["images"], expected)
    if keras.backend.backend() != "tensorflow":
        assert not hasattr(sys.modules["tensorflow"], "data")
        print("alone")
        return
    import tensorflow as tf

    data = tf.data.Dataset.from_generator(
        lambda: iter(pictures), output_signature=tf.TensorSpec((None, None, 3), tf.uint8)
    )
    rows = list(data.map(converter))
    same(tf.stack(rows), expected)
    assert data.map(converter).element_spec.shape == expected.shape[1:]
    batches = tf.data.Dataset.from_tensors(np.stack([pictures[0]] * 2)).map(preprocessor)
    assert batches.element_spec["images"].shape == (2, *expected.shape[1:])
    same(next(iter(batches))["images"], expected[[0, 0]])
    labelled = tf.data.Dataset.from_tensors((pictures[0], 3)).map(preprocessor)
    x, y = next(iter(labelled))
    same(x["images"], expected[0])
    assert int(y) == 3
    print("same")


def same(found: Any, expected: np.ndarray) -> None:
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected, rtol=0, atol=1e-5)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
