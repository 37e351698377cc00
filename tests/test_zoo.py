"""The zoo's loader, its runner on tiny models, and the page of its results."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.zoo import coverage, results
from benchmarks.zoo.one import converted
from benchmarks.zoo.pool import Limits, run_all
from benchmarks.zoo.specs import BEYOND, build, inputs, laid_over, specs
from hf2khc.forking.fork import Fork

ROOT = Path(__file__).parents[1]
SMALLEST, REFUSED = "deit", "univnet"


def test_every_spec_has_inputs_and_a_config():
    found = specs()
    assert len(found) == 781
    assert all(spec.inputs and spec.padded and isinstance(spec.config, dict) for spec in found.values())
    assert found["bert.AutoModelForMaskedLM"].inputs == found["bert"].inputs


def test_the_specs_beyond_are_of_model_types_that_the_zoo_lacks():
    known = {(spec.model_type, spec.auto_class) for spec in specs().values()}
    found = specs(BEYOND)
    assert len(found) > 250
    assert not known & {(spec.model_type, spec.auto_class) for spec in found.values()}
    assert [spec.place for spec in found.values()] == list(range(len(found)))


def test_a_built_model_has_no_parameter_left_as_it_was_initialised():
    model = build(specs()["bert"])
    for name, parameter in model.named_parameters():
        assert parameter.unique().numel() > 1, name
        assert not torch.equal(parameter, torch.ones_like(parameter)), name
    again = dict(build(specs()["bert"]).named_parameters())
    assert all(torch.equal(parameter, again[name]) for name, parameter in model.named_parameters())


def test_padded_inputs_differ_in_the_mask_alone():
    whole, padded = inputs(specs()["llama"]), inputs(specs()["llama"], padded=True)
    assert [name for name in whole if not np.array_equal(whole[name], padded[name])] == ["attention_mask"]
    assert padded["attention_mask"][0].all() and not padded["attention_mask"][1].all()


def test_configs_are_laid_over_each_other_at_every_depth():
    assert laid_over({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}, "d": "__del__"}) == {"a": {"b": 4, "c": 2}}


def test_a_fork_reports_how_it_ended(tmp_path):
    log = tmp_path / "log"
    assert Fork(lambda: print("hello"), {}, log).wait() == 0
    assert log.read_text() == "hello\n"
    assert Fork(lambda: 1 / 0, {}, log).wait() == 1
    sleeping = Fork(lambda: time.sleep(60), {}, log)
    sleeping.kill()
    assert sleeping.wait() < 0


def test_jobs_over_a_limit_are_ended():
    jobs = [("slow", lambda: time.sleep(60)), ("large", _fill_memory), ("fine", lambda: print("done"))]
    found = {e.key: e for e in run_all(jobs, 3, Limits(25.0, 3 * 2**30))}
    assert {key: ended.reason for key, ended in found.items()} == {
        "slow": "time-limit", "large": "memory-limit", "fine": "",
    }  # fmt: skip
    assert found["fine"].log == "done\n"


def _fill_memory() -> None:
    held = np.ones(2**29)  # 4 GiB, touched
    time.sleep(60)
    del held


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> dict:
    """Records of the runner: a spec that converts, one that does not, and one that computes something else."""
    lines = tmp_path_factory.mktemp("zoo") / "lines.jsonl"
    program = (
        "import sys; from pathlib import Path; from benchmarks.zoo import run; from benchmarks.zoo.pool import Limits\n"
        "found = [run.specs()[name] for name in sys.argv[2].split(',')]\n"
        "run.run(found, 2, Limits(300, 8 * 2**30), None, Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", program, str(lines), f"{SMALLEST},{REFUSED}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=600, capture_output=True)
    return results.read_lines(lines)


def test_the_runner_proves_one_spec_and_says_why_it_refuses_another(ran):
    assert ran[SMALLEST]["status"] == "exact"
    assert 0 < ran[SMALLEST]["error"] <= ran[SMALLEST]["bound"]
    assert 0 < ran[SMALLEST]["core_layer_share"] <= 1 <= ran[SMALLEST]["parameters"]
    assert ran[SMALLEST]["contract"] == {}
    assert ran[REFUSED]["status"] != "exact"
    assert ran[REFUSED]["diagnostic"]["code"] and ran[REFUSED]["diagnostic"]["message"]
    assert str(ROOT) not in json.dumps(ran)


def test_a_pass_that_changes_what_is_computed_is_wrong(monkeypatch):
    """A mutation of the weights of the package alone: the proof must see it."""
    from hf2khc.check import prove as proof

    def shifted(path):
        found = load(path)
        if path.stem == "torch":
            found = {case: {n: a + np.float32(1e-4) for n, a in arrays.items()} for case, arrays in found.items()}
        return found

    load = proof.load_arrays
    monkeypatch.setattr(proof, "load_arrays", shifted)
    record = converted(specs()["distilbert"], ("torch",))
    assert (record["status"], record["diagnostic"]["code"]) == ("wrong", "proof-failed"), record["diagnostic"]


def test_what_is_exact_stays_and_the_rest_is_converted_by_another_compiler():
    exact, refused = {"status": "exact", "compiler": "a"}, {"status": "error", "compiler": "a"}
    assert results.still_good(exact, "b") and results.still_good(refused, "a")
    assert not results.still_good(refused, "b") and not results.still_good(None, "a")


def test_a_half_written_line_is_passed_over(tmp_path):
    path = tmp_path / "lines"
    results.append({"name": "a", "status": "error"}, path)
    results.append({"name": "a", "status": "exact"}, path)
    path.write_text(path.read_text() + '{"name": "b", "sta')
    assert results.read_lines(path) == {"a": {"name": "a", "status": "exact"}}


def test_the_page_counts_and_names_reasons(tmp_path):
    base = {"family": "decoder", "head": False, "backends": ["torch"], "seconds": 1.0, "stages": {"capture": 2.0}}
    good = {
        "name": "good", "status": "exact", "error": 1e-7, "generalises": True, "residue": {"ops.add": 3},
        "idioms": {"Dense": 2}, "parameters": 10, "core_layer_share": 0.9,
        "contract": {"enable_lora": "projections that enable_lora does not find: good/attention"}, **base,
    }  # fmt: skip
    diagnostic = {"code": "unsupported-op", "message": "aten.odd has no lowering", "location": "a.py:3", "excerpt": ""}
    bad = {"name": "bad", "status": "unsupported-op", "diagnostic": diagnostic, **base}
    results.write_result([good, bad], {"specs": 2}, tmp_path / "zoo.json")
    same = {"name": "same", "status": "equal", "compared": 4, "equal": 4, "cacheless": ""}
    slow = {"name": "slow", "status": "equal", "compared": 4, "equal": 4, "cacheless": "states of its own"}
    other = {"name": "other", "status": "differs", "compared": 4, "equal": 1, "cacheless": ""}
    results.write_result([same, slow, other], {}, tmp_path / "decoders.json")
    coverage.write_coverage(tmp_path / "zoo.json", tmp_path / "coverage.md", tmp_path / "decoders.json")
    text = (tmp_path / "coverage.md").read_text()
    assert "2 of 3 causal language models give the very tokens of `generate` of transformers, 8 in all; 1 of" in text
    assert "| other | differs | 1 of 4 equal |\n| slow | equal | no cache: states of its own |" in text
    assert "2 of 2 specs converted: 1 exact, 1 unsupported-op." in text
    assert "`hf2khc verify` on torch: 0 of 1 packages keep all of it" in text
    assert "| good | enable_lora | projections that enable_lora does not find: good/attention |" in text
    assert "90.0% of their parameters" in text
    assert "| `aten.odd` | 1 |" in text
    assert "| bad | unsupported-op | unsupported-op | aten.odd has no lowering | a.py:3 | 1 |" in text
    assert "| good | 1.0e-07 | yes | 3 | 2 Dense | torch | 1 |" in text
