"""The proof of a whole package against transformers, and the mutations that turn it red."""

import importlib.util
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import pytest

from hf2khc.check.cases import build_cases, choose_sizes, save_arrays
from hf2khc.check.proof import Proof, Run, Source
from hf2khc.check.prove import _run_reference, _unaccounted, prove
from hf2khc.diagnostics import ConversionError
from hf2khc.weights.transfer import transfer

pytest.importorskip("transformers")


def load_tiny():
    spec = importlib.util.spec_from_file_location("tiny_model", Path(__file__).parent / "tiny_bert" / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TINY = load_tiny()


def sample(sizes, seed, padding):
    generator = np.random.default_rng(seed)
    mask = np.ones((sizes["batch"], sizes["seq"]), np.int64)
    for i in range(1, sizes["batch"]):
        mask[i, {"none": slice(0, 0), "right": slice(-i, None), "left": slice(0, i)}[padding]] = 0
    return {"input_ids": generator.integers(0, 50, mask.shape), "attention_mask": mask}


CASES = build_cases(sample, choose_sizes({"batch": 2, "seq": 7}), masked=True)
FEW = dict(list(CASES.items())[:3])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    directory = tmp_path_factory.mktemp("checkpoint")
    TINY.save_checkpoint(directory)
    return Source("transformers", "BertModel", str(directory))


@pytest.fixture(scope="module")
def package(tmp_path_factory, source):
    directory = tmp_path_factory.mktemp("package")
    TINY.write_package(directory)
    transfer(directory, TINY.weight_map(source.path), source.path, TINY.CONSTANTS)
    return directory


@pytest.fixture
def reference_once(tmp_path_factory, source, monkeypatch):
    """Mutations change the package alone, so they share one run of the reference."""
    folder = tmp_path_factory.getbasetemp() / "reference"
    if not folder.exists():
        folder.mkdir()
        save_arrays(folder / "cases.npz", FEW)
        (folder / "run.json").write_text(json.dumps(asdict(_run_reference(source, folder))))

    def reuse(_, scratch):
        shutil.copytree(folder, scratch, dirs_exist_ok=True)
        return Run(**json.loads((folder / "run.json").read_text()))

    monkeypatch.setattr("hf2khc.check.prove._run_reference", reuse)


def test_holds_on_every_backend(package, source):
    backends = [name for name in ("jax", "tensorflow", "torch") if importlib.util.find_spec(name)]
    proof = prove(package, source, CASES, backends=backends)
    assert proof.holds, "\n".join(d.render() for d in proof.diagnostics)
    assert len(proof.rows) == len(backends) * 6 * 2
    assert all(0 < row.ours < 2e-6 and 0 < row.theirs < 1e-6 for row in proof.rows)
    assert [run.side for run in proof.runs] == ["transformers", *backends]
    assert all(run.peak_bytes > 0 and run.parameters > 13000 for run in proof.runs)
    assert Proof.from_json(json.loads(json.dumps(proof.to_json()))) == proof


def swap_query_and_value(directory):
    with h5py.File(directory / "preset" / "model.weights.h5", "r+") as file:
        first, second = (file[f"layers/tiny_bert_layer/{name}/vars/0"] for name in ("query", "value"))
        kept = first[...]
        first[...] = second[...]
        second[...] = kept


def drop_a_bias(directory):
    with h5py.File(directory / "preset" / "model.weights.h5", "r+") as file:
        file["layers/tiny_bert_layer_1/output_dense/vars/1"][...] = 0


def change_epsilon(directory):
    path = directory / "preset" / "config.json"
    config = json.loads(path.read_text())
    assert config["config"]["layer_norm_epsilon"] == 1e-12
    config["config"]["layer_norm_epsilon"] = 1e-3
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("mutate", [swap_query_and_value, drop_a_bias, change_epsilon])
def test_mutations_turn_it_red(package, source, reference_once, tmp_path, mutate):
    directory = tmp_path / "mutated"
    shutil.copytree(package, directory)
    mutate(directory)
    proof = prove(directory, source, FEW, backends=["torch"])
    assert not proof.holds
    assert {d.code for d in proof.diagnostics} == {"parity"}
    assert all(row.ours > row.bound for row in proof.rows if row.output == "last_hidden_state")


def test_an_ignored_mask_turns_it_red(package, source, reference_once, tmp_path):
    directory = tmp_path / "mutated"
    shutil.copytree(package, directory)
    path = directory / "tiny_bert" / "__init__.py"
    before, after = "x = layer(x, mask=padding_mask)", "x = layer(x, mask=ops.ones_like(padding_mask))"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    proof = prove(directory, source, FEW, backends=["torch"])
    wrong = {row.case.split(" ")[0] for row in proof.rows if not row.holds}
    assert not proof.holds and wrong == {"right", "left"}


WRONG = """

@keras.saving.register_keras_serializable(package="tiny_bert")
class Wrong(keras.layers.Layer):
    def call(self, inputs):
        return inputs

    def compute_output_shape(self, inputs_shape):
        return (inputs_shape[0], 99, inputs_shape[2])
"""


def test_a_wrong_shape_turns_it_red(package, source, reference_once, tmp_path):
    directory = tmp_path / "mutated"
    shutil.copytree(package, directory)
    path = directory / "tiny_bert" / "__init__.py"
    text, before = path.read_text(), '"sequence_output": x,'
    assert text.count(before) == 1
    path.write_text(text.replace(before, '"sequence_output": Wrong()(x),') + WRONG)
    proof = prove(directory, source, FEW, backends=["torch"])
    assert not proof.holds and "is said to have (None, 99, " in proof.diagnostics[0].render()


def test_output_that_nobody_mentions():
    signature = {"outputs": {"last_hidden_state": {}}, "omitted": {"past_key_values": "cache"}}
    leaves = {"last_hidden_state": 0, "past_key_values.0.1": 0}
    assert not _unaccounted(signature, {"case": leaves})
    (found,) = _unaccounted(signature, {"case": {**leaves, "pooler_output": 0, "past_key_values_2": 0}})
    assert "neither maps nor omits" in found.message and found.excerpt == "past_key_values_2\npooler_output"


def test_code_that_raises_is_a_red_proof(package, source, reference_once, tmp_path):
    directory = tmp_path / "mutated"
    shutil.copytree(package, directory)
    path = directory / "tiny_bert" / "__init__.py"
    path.write_text(path.read_text() + "\nraise OSError('no such thing')\n")
    proof = prove(directory, source, FEW, backends=["torch"])
    assert not proof.holds and "no such thing" in proof.diagnostics[0].render()


def test_a_reference_that_cannot_be_loaded(package, tmp_path):
    with pytest.raises(ConversionError) as caught:
        prove(package, Source("transformers", "BertModel", str(tmp_path)), FEW, backends=["torch"])
    assert caught.value.diagnostics[0].code == "reference"
