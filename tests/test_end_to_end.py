"""Tiny models of very different architectures, from the model to a proved package, on every backend."""

import json
import os
import re
import subprocess
import sys

import convert_many
import proof_of_many
import pytest
from float64_reference import noisy_model
from tiny_models import MODELS, bert, llama
from transformers import BertModel, LlamaModel

import hf2khc
from hf2khc.check.cases import load_arrays
from hf2khc.check.reference import outputs, outputs_float64, widen
from hf2khc.diagnostics import ConversionError
from hf2khc.driver.proof import installed_backends
from hf2khc.static.convert import convert_static

BACKENDS = installed_backends()
# Two processes, each with a seed of its own for the order of sets; one prints again what the other converts.
HALVES = (("llama", "gemma2", "t5", "albert"), ("gpt2", "bert", "vit", "qwen3", "gpt2_lm_head"))
PRINTED_TWICE = ("bert", "vit")
TESTED = ("llama", "vit")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where every model was converted; see `convert_many`."""
    found = tmp_path_factory.mktemp("packages")
    runs = [convert_many.start(found, HALVES[0], PRINTED_TWICE, 1), convert_many.start(found, HALVES[1], (), 2)]
    codes = [run.wait() for run in runs]
    assert codes == [0, 0], (found / f"log-{1 if codes[0] else 2}").read_text()[-3000:]
    return found


@pytest.fixture(scope="module")
def packages(folder):
    """What `convert_many` found out about each model."""
    return {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in MODELS}


@pytest.fixture(scope="module")
def backends(folder, packages):
    """Every package was run on every backend, and the printed tests of some; two processes at a time."""
    names = [name for name, found in packages.items() if "error" not in found]
    first = proof_of_many.start(folder, names, BACKENDS[0])
    codes = [proof_of_many.start(folder, names, backend).wait() for backend in BACKENDS[1:]]
    codes.insert(0, first.wait())
    for backend, code in zip(BACKENDS, codes, strict=True):
        assert code == 0, (folder / f"log-{backend}").read_text()[-3000:]
    return BACKENDS


def test_the_halves_are_all_models():
    assert sorted([*HALVES[0], *HALVES[1]]) == sorted(MODELS)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MODELS)
def test_the_package_computes_what_the_model_computes(folder, packages, backends, name, backend):
    assert "error" not in packages[name], packages[name]["error"]
    rows = proof_of_many.rows(folder, name, backend)
    assert len(rows) >= 2
    assert not [row for row in rows if not row.holds]


@pytest.mark.parametrize("name", MODELS)
def test_every_number_follows_from_the_config(packages, name):
    assert "error" not in packages[name], packages[name]["error"]
    assert packages[name]["generalises"] == []


@pytest.mark.parametrize("name", MODELS)
def test_layers_stand_in_a_loop(packages, name):
    assert "error" not in packages[name], packages[name]["error"]
    backbone = next(text for path, text in packages[name]["sources"].items() if path.endswith("_backbone.py"))
    assert "for i in range(" in backbone or "for i, " in backbone or name == "albert"
    assert "_layer_2" not in backbone


def test_the_tests_that_are_printed_pass(folder, packages):
    files = [str(path) for name in TESTED for path in (folder / name).glob("*/*_backbone_test.py")]
    assert len(files) == len(TESTED)
    roots = os.pathsep.join(str(folder / name) for name in TESTED)
    environment = {**os.environ, "PYTHONPATH": roots, "KERAS_BACKEND": BACKENDS[0], "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", *files]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
    assert run.returncode == 0, run.stdout[-4000:]
    assert re.search(r"^\d+ passed", run.stdout, re.MULTILINE)


@pytest.mark.parametrize("name", PRINTED_TWICE)
def test_sources_do_not_depend_on_the_order_of_hashes(folder, packages, name):
    printed = json.loads((folder / f"{name}-sources.json").read_text(encoding="utf-8"))
    assert printed == packages[name]["sources"]


def test_swapped_weights_are_found(folder, backends):
    """Against a model that has two norms swapped, the proof must not hold."""
    model, cases = noisy_model(bert(), BertModel), load_arrays(folder / "bert-cases.npz")
    first, second = model.encoder.layer[1].attention.output.LayerNorm, model.encoder.layer[1].output.LayerNorm
    first.bias.data, second.bias.data = second.bias.data, first.bias.data
    theirs = {case: outputs(model, inputs) for case, inputs in cases.items()}
    widen(model)
    exact = {case: outputs_float64(model, inputs) for case, inputs in cases.items()}
    assert not all(row.holds for row in proof_of_many.rows(folder, "bert", "torch", theirs, exact))
    assert all(row.holds for row in proof_of_many.rows(folder, "bert", "torch"))


def test_convert_proves_by_itself(tmp_path):
    model = noisy_model(llama(head_dim=14, num_hidden_layers=2), LlamaModel)
    done = hf2khc.convert(model, tmp_path / "out", backends=["torch"])
    assert done.report.proved is True
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"preset", "REPORT.md", "weight_map.json"}


def test_the_static_way_is_proved_or_refused(tmp_path):
    """With an epsilon of its own, GPT-2 is no longer what KerasHub's converter takes it for."""
    sizes = {"vocab_size": 61, "n_positions": 48, "n_embd": 40, "n_layer": 2, "n_head": 4}
    options = {"random_init": True, "check": True, "backends": ["torch"]}
    done = convert_static("gpt2", tmp_path / "right", overrides=sizes, **options)
    assert done.report.proved is True and (tmp_path / "right" / "REPORT.md").is_file()
    with pytest.raises(ConversionError) as error:
        convert_static("gpt2", tmp_path / "wrong", overrides={**sizes, "layer_norm_epsilon": 0.1}, **options)
    assert error.value.diagnostics[0].code == "proof-failed" and not (tmp_path / "wrong").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_convert_proves_on_every_backend(name, tmp_path):
    model = noisy_model(*MODELS[name], seed=7)
    assert hf2khc.convert(model, tmp_path / "out").report.proved is True
