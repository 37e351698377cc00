"""From a compiled program to a proved package on disk: everything of `convert` but the passes.

The program is written by hand (tests/write_models), so these tests do not depend on capture or on any pass.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers import LlamaConfig, LlamaModel

import hf2khc
from hf2khc.capture.inputs import Input
from hf2khc.capture.source import Source
from hf2khc.diagnostics import ConversionError
from hf2khc.driver.compile import Compiled
from hf2khc.driver.proof import proof_cases

TESTS = Path(__file__).parent
SPEC = (
    Input("input_ids", "int64", ("batch", "seq"), ("randint", 3, 50)),
    Input("attention_mask", "int64", ("batch", "seq"), ("ones",), "mask"),
)
SIGNATURE = {
    "inputs": {
        "input_ids": {"name": "token_ids", "dtype": "int32", "shape": ["batch", "seq"]},
        "attention_mask": {
            "name": "padding_mask", "dtype": "int32", "shape": ["batch", "seq"], "default": "ones", "like": "token_ids",
        },
    },
    "outputs": {"last_hidden_state": {"name": "sequence_output", "dtype": "float32", "shape": ["batch", "seq", 24]}},
    "omitted": {"past_key_values": "a cache"},
}  # fmt: skip


def load_plans() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_plans", TESTS / "write_models" / "plans.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def compiled(mutate: tuple[str, str] = ("", "")) -> Compiled:
    """What the passes would give for the model below; `mutate` replaces a piece of the program's text."""
    from hf2khc.ir.text import format_program, parse_program

    plan = load_plans().llama()
    text = format_program(plan.program).replace("return %norm, %logits", "return %norm")
    text = text.replace('returns "last_hidden_state", "logits"', 'returns "last_hidden_state"')
    assert mutate[0] in text
    program = parse_program(text.replace(*mutate) if mutate[0] else text)
    plan = replace(plan, program=program, outputs=("sequence_output",))
    captured = SimpleNamespace(
        program=program,
        spec=SPEC,
        sizes={"batch": 2, "seq": 11},
        smallest={"batch": 1, "seq": 1},
        largest={},
        edges={},
        held=(),
        notes=(),
        parameters=LlamaModel(CONFIG).num_parameters(),
    )
    return Compiled(plan, SIGNATURE, {"last": program}, captured)


CONFIG = LlamaConfig(
    vocab_size=50, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, hidden_size=24,
    intermediate_size=40, head_dim=6, rms_norm_eps=1e-5, tie_word_embeddings=False,
)  # fmt: skip


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Puts the program above in the place of what the passes give; the test may set `mutate` or `error`."""
    settings: dict[str, Any] = {"mutate": ("", ""), "error": None}

    def compile_model(source: Source, twin: object, *, validate: bool, on_stage: Any) -> SimpleNamespace:
        on_stage("passes")
        if settings["error"] is not None:
            raise settings["error"]
        return compiled(settings["mutate"])

    monkeypatch.setattr("hf2khc.driver.build.compile_model", compile_model)
    return settings


def model() -> LlamaModel:
    import torch

    torch.manual_seed(0)
    found = LlamaModel(CONFIG).eval()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return found


def test_a_live_model_becomes_a_proved_package_that_loads(passes: dict[str, Any], tmp_path: Path) -> None:
    events: list[Any] = []
    done = hf2khc.convert(model(), tmp_path / "out", backends=["torch"], on_event=events.append)
    out = tmp_path / "out"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name for path in out.iterdir()} == {
        "llama", "preset", "weight_map.json", "signature.json", "report.json", "REPORT.md",
    }  # fmt: skip
    assert [path.parent.name for path in out.rglob("__init__.py")] == ["llama"]
    assert {Path(name).name for name in done.sources} == {path.name for path in (out / "llama").iterdir()}
    assert all((out / name).read_text() == text for name, text in done.sources.items())
    report = json.loads((out / "report.json").read_text())
    assert report["proved"] is True and report["parameters"]["transformers"] == report["parameters"]["keras"]
    assert {row["backend"] for row in report["errors"]} == {"torch"} and len(report["errors"]) == 6
    stages = [stage["name"] for stage in report["stages"]]
    assert stages == ["open", "passes", "write", "weights", "check", "other config"]
    assert json.loads((out / "signature.json").read_text()) == SIGNATURE
    rows = json.loads((out / "weight_map.json").read_text())["rows"]
    assert len(rows) == len(list(model().parameters()))
    assert len(events) == 12 and report["reasons"] == ["the model has no twin"]


def test_load_gives_the_numbers_of_the_model(passes: dict[str, Any], tmp_path: Path) -> None:
    import torch

    source = model()
    hf2khc.convert(source, tmp_path / "out", check=False)
    ids = np.arange(12).reshape(2, 6)
    with torch.no_grad():
        theirs = source(input_ids=torch.from_numpy(ids)).last_hidden_state.numpy()
    code = (
        "import sys, numpy as np, hf2khc\n"
        "model = hf2khc.load(sys.argv[1])\n"
        "ids = np.arange(12).reshape(2, 6).astype('int32')\n"
        "np.save(sys.argv[2], np.asarray(model({'token_ids': ids, 'padding_mask': np.ones_like(ids)})))"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code, str(tmp_path / "out"), str(tmp_path / "ours.npy")]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    assert np.abs(np.load(tmp_path / "ours.npy") - theirs).max() < 1e-5 * np.abs(theirs).max()


def test_a_wrong_program_is_not_published(passes: dict[str, Any], tmp_path: Path) -> None:
    passes["mutate"] = ("ops.silu(%gate)", "ops.gelu(%gate)")
    with pytest.raises(ConversionError) as error:
        hf2khc.convert(model(), tmp_path / "new" / "out", backends=["torch"])
    first = error.value.diagnostics[0]
    assert first.code == "proof-failed" and "last_hidden_state" in first.excerpt and "differs" in first.excerpt
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_a_stage_leaves_nothing(passes: dict[str, Any], tmp_path: Path) -> None:
    passes["error"] = ZeroDivisionError("in a pass")
    with pytest.raises(ZeroDivisionError):
        hf2khc.convert(model(), tmp_path / "new" / "out")
    assert list(tmp_path.iterdir()) == []


def test_without_weights_the_map_speaks_of_the_file_it_would_be(passes: dict[str, Any], tmp_path: Path) -> None:
    source = tmp_path / "model"
    CONFIG.architectures = ["LlamaModel"]
    CONFIG.save_pretrained(source)
    done = hf2khc.convert(source, tmp_path / "out", random_init=True, weights=False)
    assert done.report.proved is None
    assert sorted(path.name for path in (tmp_path / "out" / "preset").iterdir()) == ["config.json", "metadata.json"]
    planned = {name for row in done.weight_map.rows for name in row.hf}
    assert planned == set(model().state_dict())
    with pytest.raises(ConversionError, match="no-weights"):
        hf2khc.load(tmp_path / "out")


def test_without_output_nothing_is_kept(
    passes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = hf2khc.convert(model(), weights=False)
    assert done.directory is None and "llama/llama_backbone.py" in done.sources
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_that_nothing_reads_is_listed_with_the_reason(passes: dict[str, Any], tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    model().save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    save_file({**load_file(file), "other.weight": np.ones(3, np.float32)}, file, metadata={"format": "pt"})
    done = hf2khc.convert(str(tmp_path / "model"), weights=False)
    assert [(item.hf, bool(item.reason)) for item in done.weight_map.not_consumed] == [("other.weight", True)]


# SIGINT is ignored where the tests run in the background of a shell. A signal that comes just before `sleep` enters the
# kernel does not end it, hence many short ones.
SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, sys.argv[2])
import test_driver_convert as t
from hf2khc.driver import build, fill
build.compile_model = lambda source, twin, validate, on_stage: t.compiled()
def slow(*args, **options):
    print("ready", flush=True)
    for _ in range(600):
        time.sleep(0.1)
fill.transfer = slow
try:
    t.hf2khc.convert(t.model(), sys.argv[1])
except KeyboardInterrupt:
    sys.exit(1)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_mid_transfer_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", SLOW, str(tmp_path / "out"), str(TESTS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None and run.stdout.readline() == "ready\n"
        assert any(path.name.startswith(".out.") for path in tmp_path.iterdir())
        run.send_signal(number)
        assert run.wait(timeout=30) == 1
    assert list(tmp_path.iterdir()) == []


# --- pieces ----------------------------------------------------------------------------------------------------------


def captured(
    smallest: dict[str, int], longest: int = 100, edges: Mapping[str, int] = MappingProxyType({})
) -> tuple[Any, Any]:
    found = SimpleNamespace(
        spec=SPEC, sizes={"batch": 2, "seq": 11}, smallest=smallest, largest={"seq": longest}, edges=edges
    )
    return SimpleNamespace(examples=()), found


def test_proof_is_at_other_sizes_with_both_paddings() -> None:
    source, found = captured({"batch": 2, "seq": 2})
    cases = proof_cases(source, found, 0)
    shapes = {inputs["input_ids"].shape for inputs in cases.values()}
    assert len(cases) == 6 and len(shapes) == 2 and all(batch > 2 and seq != 11 for batch, seq in shapes)
    masks = [inputs["attention_mask"] for inputs in cases.values()]
    assert any((mask[:, 0] == 0).any() for mask in masks) and any((mask[:, -1] == 0).any() for mask in masks)


def test_proof_keeps_fixed_sizes_and_the_longest_sequence() -> None:
    source, found = captured({"seq": 2}, longest=6)
    shapes = {inputs["input_ids"].shape for inputs in proof_cases(source, found, 0).values()}
    assert {batch for batch, _ in shapes} == {2} and all(seq <= 6 for _, seq in shapes)


def test_proof_is_at_a_size_at_which_nothing_is_padded() -> None:
    source, found = captured({"batch": 2, "seq": 2}, edges={"seq": 8})
    lengths = [inputs["input_ids"].shape[1] for inputs in proof_cases(source, found, 0).values()]
    assert len(lengths) == 9 and 8 in lengths
    source, found = captured({"batch": 2, "seq": 2}, longest=12, edges={"seq": 256})
    assert len(proof_cases(source, found, 0)) == 6


def test_proof_is_at_sizes_for_which_the_model_was_traced() -> None:
    source, found = captured({"batch": 2, "seq": 9})
    lengths = {inputs["input_ids"].shape[1] for inputs in proof_cases(source, found, 0).values()}
    assert len(lengths) == 2 and min(lengths) >= 9 and 11 not in lengths
