"""Transfer fills the preset that `save_to_preset` would write, and every backend loads it with equal values."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from hf2khc.diagnostics import ConversionError
from hf2khc.ir.float64 import keras_on_torch
from hf2khc.process import run_job
from hf2khc.weights.checkpoint import Checkpoint
from hf2khc.weights.rows import WeightMap
from hf2khc.weights.transfer import read_layout, transfer
from hf2khc.weights.transform import evaluate

pytest.importorskip("transformers")

LOAD = """
import sys, numpy as np, keras, keras_hub
from pathlib import Path
from hf2khc.package import import_package
directory, out, again = map(Path, sys.argv[1:4])
import_package(directory)
dtype = sys.argv[5] if len(sys.argv) > 5 else None
model = keras_hub.models.Backbone.from_preset(str(directory / "preset"), dtype=dtype)
np.savez(out, **{v.path.replace("/", "|"): keras.ops.convert_to_numpy(v) for v in model.weights})
if len(sys.argv) > 4:
    model.save_to_preset(str(again), max_shard_size=float(sys.argv[4]))
"""


def load_tiny():
    spec = importlib.util.spec_from_file_location("tiny_model", Path(__file__).parent / "tiny_bert" / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TINY = load_tiny()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("checkpoint")
    TINY.save_checkpoint(directory, max_shard_size="30KB")
    assert (directory / "model.safetensors.index.json").exists()
    return directory


@pytest.fixture(scope="module")
def package(tmp_path_factory, checkpoint):
    directory = tmp_path_factory.mktemp("package")
    TINY.write_package(directory)
    weights = TINY.weight_map(checkpoint)
    stats = transfer(directory, weights, checkpoint, TINY.CONSTANTS)
    assert (stats.variables, stats.parameters) == (40, 13760)
    assert stats.written_bytes > 4 * 13760 and stats.peak_bytes >= stats.base_bytes > 0
    return directory


def run_load(directory, scratch, backend, *shard):
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", LOAD, str(directory), str(scratch / "v.npz"), str(scratch / "again"), *shard]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    with np.load(scratch / "v.npz") as data:
        return {name.replace("|", "/"): data[name] for name in data.files}


def tree(file):
    """Everything in an h5 file: groups, their attributes, datasets."""
    found = {}
    with h5py.File(file) as data:

        def visit(name, item):
            value = item[...] if isinstance(item, h5py.Dataset) else None
            found[name] = (type(item), dict(item.attrs), value)

        data.visititems(visit)
    return found


def assert_same_trees(first, second):
    first, second = tree(first), tree(second)
    assert list(first) == list(second)
    for name, (kind, attributes, value) in first.items():
        assert (kind, attributes) == second[name][:2]
        if value is not None:
            assert value.dtype == second[name][2].dtype
            np.testing.assert_array_equal(value, second[name][2])


@pytest.mark.parametrize("backend", ["jax", "tensorflow", "torch"])
def test_every_backend_loads_equal_values(package, checkpoint, tmp_path, backend):
    pytest.importorskip(backend)
    shard = ["10"] if backend == "torch" else []
    found = run_load(package, tmp_path, backend, *shard)
    tensors = Checkpoint(checkpoint)
    rows = TINY.weight_map(checkpoint).rows
    assert set(found) == {row.keras for row in rows}
    for row in rows:
        arrays = [TINY.CONSTANTS[row.constant]] if row.constant else [tensors.read(name) for name in row.hf]
        np.testing.assert_array_equal(found[row.keras], evaluate(row.transform, arrays))
    if shard:
        again = tmp_path / "again"
        assert_same_trees(package / "preset" / "model.weights.h5", again / "model.weights.h5")
        assert (package / "preset" / "config.json").read_text() == (again / "config.json").read_text()
        ours, theirs = (json.loads((d / "metadata.json").read_text()) for d in (package / "preset", again))
        assert {**ours, "date_saved": ""} == {**theirs, "date_saved": ""}


def test_shards_and_bfloat16_as_keras_writes_them(checkpoint, tmp_path):
    TINY.write_package(tmp_path / "p")
    rows = TINY.weight_map(checkpoint).rows
    narrow = tuple(replace(r, keras_dtype="bfloat16") if r.keras_dtype == "float32" else r for r in rows)
    limit = 20_000 / 1024**3
    transfer(tmp_path / "p", WeightMap(narrow), checkpoint, TINY.CONSTANTS, dtype="bfloat16", shard_gigabytes=limit)
    preset = tmp_path / "p" / "preset"
    run_load(tmp_path / "p", tmp_path, "torch", repr(limit), "bfloat16")
    config = json.loads((preset / "config.json").read_text())
    assert config["config"]["dtype"]["config"]["name"] == "bfloat16"
    index, again = (json.loads((d / "model.weights.json").read_text()) for d in (preset, tmp_path / "again"))
    assert index == again and len(list(preset.glob("*.h5"))) > 1
    for file in preset.glob("*.h5"):
        assert_same_trees(file, tmp_path / "again" / file.name)


def test_without_weights(checkpoint, tmp_path):
    TINY.write_package(tmp_path / "p")
    stats = transfer(tmp_path / "p", TINY.weight_map(checkpoint), checkpoint, TINY.CONSTANTS, weights=False)
    assert stats.written_bytes == 0
    assert sorted(p.name for p in (tmp_path / "p" / "preset").iterdir()) == ["config.json", "metadata.json"]


def test_a_broken_law_stops_it_before_anything_is_written(checkpoint, tmp_path):
    TINY.write_package(tmp_path / "p")
    before = (tmp_path / "p" / "preset" / "config.json").read_text()
    weights = TINY.without(TINY.weight_map(checkpoint), "pooler/bias", "to see")
    with pytest.raises(ConversionError, match="pooler/bias: not assigned"):
        transfer(tmp_path / "p", weights, checkpoint, TINY.CONSTANTS)
    assert [p.name for p in (tmp_path / "p" / "preset").iterdir()] == ["config.json"]
    assert (tmp_path / "p" / "preset" / "config.json").read_text() == before


def test_a_package_that_cannot_be_built(tmp_path):
    TINY.write_package(tmp_path / "p", num_heads="two")
    with pytest.raises(ConversionError) as caught:
        read_layout(tmp_path / "p")
    assert caught.value.diagnostics[0].code == "package"


def test_a_child_that_dies_is_reported():
    with pytest.raises(ConversionError, match="exit code 1") as caught:
        run_job("hf2khc.weights.transfer", {}, {"KERAS_BACKEND": "torch"})
    assert "KeyError" in caught.value.diagnostics[0].excerpt


def test_a_layer_of_the_name_backbone_makes_no_task(tmp_path):
    keras = keras_on_torch()
    import keras_hub

    from hf2khc.weights import layout

    class Nested(keras_hub.models.Backbone):
        def __init__(self, **kwargs):
            self.backbone = keras.layers.Dense(3, name="backbone")
            inputs = keras.Input((2,), name="inputs")
            super().__init__(inputs=inputs, outputs=self.backbone(inputs), **kwargs)

    slots = layout.create_files(Nested(), tmp_path)
    assert {slot.file.name for slot in slots} == {"model.weights.h5"} and len(slots) == 2
