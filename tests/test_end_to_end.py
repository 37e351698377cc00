"""Tiny models of very different architectures, from the model to a proved package, on every backend."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import proof_of_many
import pytest
from float64_reference import noisy_model
from tiny_models import MODELS, bert, llama
from transformers import BertModel, LlamaModel

import hf2khc
from hf2khc.driver.proof import installed_backends

BACKENDS = installed_backends()


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Every model, converted; an error in place of a package that was not written."""
    folder, found = tmp_path_factory.mktemp("packages"), {}
    for name, (config, model_class) in MODELS.items():
        model = noisy_model(config, model_class)
        model.config.name_or_path = name
        try:
            conversion = hf2khc.convert(model, folder / name, check=False)
            found[name] = proof_of_many.Package(model, conversion)
        except hf2khc.ConversionError as error:
            found[name] = error
    return found


@pytest.fixture(scope="module")
def proofs(packages, tmp_path_factory):
    """`proofs(backend)`: rows by model; each backend runs once."""
    written = {name: package for name, package in packages.items() if not isinstance(package, Exception)}
    references = {name: proof_of_many.reference(package) for name, package in written.items()}
    done: dict[str, dict] = {}

    def of(backend: str) -> dict:
        if backend not in done:
            done[backend] = proof_of_many.prove(written, references, backend, tmp_path_factory.mktemp(backend))
        return done[backend]

    return of


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MODELS)
def test_the_package_computes_what_the_model_computes(packages, proofs, name, backend):
    assert isinstance(packages[name], proof_of_many.Package), packages[name]
    rows = proofs(backend)[name]
    assert not isinstance(rows, str), rows
    assert len(rows) >= len(packages[name].cases)
    assert not [row for row in rows if not row.holds]


@pytest.mark.parametrize("name", MODELS)
def test_every_number_follows_from_the_config(packages, name):
    assert isinstance(packages[name], proof_of_many.Package), packages[name]
    assert packages[name].conversion.compiled.generalises == ()


@pytest.mark.parametrize("name", MODELS)
def test_layers_stand_in_a_loop(packages, name):
    assert isinstance(packages[name], proof_of_many.Package), packages[name]
    backbone = next(t for path, t in packages[name].conversion.sources.items() if path.endswith("_backbone.py"))
    assert "for i in range(" in backbone or "for i, " in backbone or name == "albert"
    assert "_layer_2" not in backbone


def test_the_tests_that_are_printed_pass(packages):
    names = ["llama", "t5"]
    files = [str(path) for name in names for path in packages[name].directory.glob("*/*_backbone_test.py")]
    assert len(files) == len(names)
    roots = os.pathsep.join(str(packages[name].directory) for name in names)
    environment = {**os.environ, "PYTHONPATH": roots, "KERAS_BACKEND": BACKENDS[0], "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", *files]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=packages["llama"].directory)
    assert run.returncode == 0, run.stdout[-4000:]
    assert re.search(r"^\d+ passed", run.stdout, re.MULTILINE)


SOURCES = """
import json, sys
sys.path.insert(0, sys.argv[1])
import hf2khc
from float64_reference import noisy_model
from tiny_models import MODELS
found = {}
for name in sys.argv[3:]:
    model = noisy_model(*MODELS[name])
    model.config.name_or_path = name
    done = hf2khc.convert(model, weights=False, check=False)
    found[name] = {"sources": dict(done.sources), "signature": done.signature}
open(sys.argv[2], "w").write(json.dumps(found))
"""


def test_sources_do_not_depend_on_the_order_of_hashes(packages, tmp_path):
    names, answer = ["llama", "t5"], tmp_path / "sources.json"
    command = [sys.executable, "-c", SOURCES, str(Path(__file__).parent), str(answer), *names]
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True)
    found = json.loads(answer.read_text())
    for name in names:
        conversion = packages[name].conversion
        assert found[name]["sources"] == dict(conversion.sources)
        assert found[name]["signature"] == json.loads(json.dumps(conversion.signature))


def test_convert_proves_by_itself(tmp_path):
    model = noisy_model(llama(head_dim=14, num_hidden_layers=2), LlamaModel)
    done = hf2khc.convert(model, tmp_path / "out", backends=["torch"])
    assert done.report.proved is True
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"preset", "REPORT.md", "weight_map.json"}


def test_swapped_weights_are_found(packages, proofs, tmp_path):
    """The proof of a package whose reference has two norms swapped must not hold."""
    package = packages["bert"]
    other = noisy_model(bert(), BertModel)
    layer = other.encoder.layer[1]
    first, second = layer.attention.output.LayerNorm, layer.output.LayerNorm
    first.bias.data, second.bias.data = second.bias.data, first.bias.data
    changed = proof_of_many.Package(other, package.conversion)
    proofs("torch")
    file = Path(changed.job("torch")["outputs"])
    rows = proof_of_many._rows(changed, *proof_of_many.reference(changed), "torch", file)
    assert not all(row.holds for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_convert_proves_on_every_backend(name, tmp_path):
    model = noisy_model(*MODELS[name], seed=7)
    assert hf2khc.convert(model, tmp_path / "out").report.proved is True
