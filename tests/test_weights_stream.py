"""Streaming gives the same values as evaluating whole tensors, whatever the block size."""

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from hf2khc.diagnostics import ConversionError
from hf2khc.weights.checkpoint import SINGLE, Checkpoint
from hf2khc.weights.rows import Row
from hf2khc.weights.stream import _as, fill_dataset, pieces, plan
from hf2khc.weights.transform import evaluate, output_shape

SHAPES = {"a": (10, 6), "b": (10, 6), "c": (3, 4, 5)}
TRANSFORMS = [
    ("x", ("a",), True),
    ("transpose(x)", ("a",), True),
    ("transpose(slice(x, (3, 1), (5, 4)))", ("a",), True),
    ("slice(transpose(x, (2, 0, 1)), (1, 0, 2), (3, 2, 2))", ("c",), True),
    ("reshape(x, (10, 2, 3))", ("a",), True),
    ("reshape(transpose(x), (2, 3, 10))", ("a",), True),
    ("reshape(transpose(x), (6, 5, 2))", ("a",), False),
    ("transpose(x) + 1", ("a",), True),
    ("2 - cast(x, 'float64')", ("a",), True),
    ("sum(x, axis=0)", ("a",), False),
    ("flip(x, axis=0)", ("a",), False),
    ("concatenate([transpose(x0), slice(x1, (0, 0), (6, 6))], axis=1)", ("a", "b"), None),
    ("stack([transpose(x0), transpose(x1)], axis=1)", ("a", "b"), None),
    ("concatenate([x0, x0 * 2], axis=0)", ("a",), None),
    ("x0 * x1", ("a", "b"), None),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("checkpoint")
    generator = np.random.default_rng(0)
    save_file({n: generator.normal(size=s).astype(np.float32) for n, s in SHAPES.items()}, directory / SINGLE)
    return Checkpoint(directory)


@pytest.mark.parametrize("block", [1, 50, 1 << 20])
@pytest.mark.parametrize(("transform", "names", "streams"), TRANSFORMS)
def test_equal_to_the_whole(checkpoint, tmp_path, transform, names, streams, block):
    shapes = tuple(SHAPES[name] for name in names)
    if transform.startswith("concatenate([x0, x0"):
        transform = transform.replace("x0", "x")
    if streams is not None:
        assert (plan(transform, shapes[0]) is not None) == streams
    shape = output_shape(transform, shapes)
    row = Row("v", (), transform, shape, "float32", names, shapes, ("float32",) * len(names))
    with h5py.File(tmp_path / "f.h5", "w") as file:
        dataset = file.create_dataset("v", shape, "float32")
        fill_dataset(dataset, row, checkpoint, block_bytes=block)
        expected = evaluate(transform, [checkpoint.read(name) for name in names]).astype(np.float32)
        np.testing.assert_array_equal(dataset[...], expected)


def test_a_stack_holds_one_tensor_at_a_time(checkpoint):
    row = Row("v", (), "stack([x0, x1])", (2, 10, 6), "float32", ("a", "b"), ((10, 6), (10, 6)), ("float32",) * 2)
    assert [piece.hf for piece in pieces(row)] == [("a",), ("b",)]


def test_indices_are_kept_in_32_bits_where_they_fit():
    small = np.array([3, -7], np.int64)
    assert _as(np.dtype("int32"), small).dtype == np.int32
    with pytest.raises(ConversionError, match="weight-range"):
        _as(np.dtype("int32"), np.array([2**40], np.int64))
