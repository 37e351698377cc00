"""Reading safetensors: every dtype, shards, and files that are broken."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from hf2khc.diagnostics import ConversionError
from hf2khc.weights.checkpoint import INDEX, SINGLE, Checkpoint

TENSORS = {
    "a": np.arange(12, dtype=np.float32).reshape(4, 3),
    "b": np.array(3.5, np.float64),
    "c": np.arange(6).astype(np.float16).reshape(2, 3),
    "d": np.array([True, False]),
    "e": np.zeros((0, 4), np.int64),
}


@pytest.fixture
def single(tmp_path):
    save_file(TENSORS, tmp_path / SINGLE)
    return tmp_path


@pytest.fixture
def sharded(tmp_path):
    files = {"one.safetensors": ["a", "b"], "two.safetensors": ["c", "d", "e"]}
    for file, names in files.items():
        save_file({n: TENSORS[n] for n in names}, tmp_path / file)
    weight_map = {n: file for file, names in files.items() for n in names}
    (tmp_path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return tmp_path


@pytest.mark.parametrize("kind", ["single", "sharded"])
def test_read(kind, request):
    checkpoint = Checkpoint(request.getfixturevalue(kind))
    assert list(checkpoint) == sorted(TENSORS)
    for name, array in TENSORS.items():
        assert checkpoint.shape(name) == array.shape and checkpoint.dtype(name) == array.dtype.name
        found = checkpoint.read(name)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(checkpoint.read("a", 1, 3), TENSORS["a"][1:3])
    np.testing.assert_array_equal(checkpoint.read("a", 3, 99), TENSORS["a"][3:])


def test_bfloat16_as_torch_writes_it(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    tensor = torch.randn(5, 3).to(torch.bfloat16)
    save_torch({"x": tensor}, tmp_path / SINGLE)
    found = Checkpoint(tmp_path).read("x")
    assert found.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found.astype(np.float32), tensor.float().numpy())


def fails(directory, *words):
    with pytest.raises(ConversionError) as caught:
        Checkpoint(directory)
    text = str(caught.value)
    assert all(word in text for word in words), text
    return caught.value.diagnostics


def test_truncated(single):
    data = (single / SINGLE).read_bytes()
    (single / SINGLE).write_bytes(data[:-5])
    fails(single, "truncated", str(len(data) - 5))
    (single / SINGLE).write_bytes(data[:4])
    fails(single, "truncated")
    (single / SINGLE).write_bytes(b"PK\x03\x04" + bytes(100))
    fails(single, "error[checkpoint]")


def test_missing_and_truncated_shards_are_all_named(sharded):
    (sharded / "one.safetensors").unlink()
    (sharded / "two.safetensors").write_bytes((sharded / "two.safetensors").read_bytes()[:-1])
    assert len(fails(sharded, "one.safetensors is missing", "two.safetensors is truncated")) == 2


def test_index_names_a_tensor_that_the_shard_lacks(sharded):
    save_file({"c": TENSORS["c"]}, sharded / "two.safetensors")
    fails(sharded, "lacks tensors", "d, e")


def test_file_that_shrinks_after_opening(single):
    checkpoint = Checkpoint(single)
    data = (single / SINGLE).read_bytes()
    (single / SINGLE).write_bytes(data[: len(data) // 2])
    with pytest.raises(ConversionError, match="ends early"):
        for name in checkpoint:
            checkpoint.read(name)


def test_nothing_there(tmp_path):
    fails(tmp_path, "no safetensors weights")


def test_unknown_name(single):
    with pytest.raises(ConversionError, match="no tensor named"):
        Checkpoint(single).read("zz")
