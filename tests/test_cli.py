"""The command line: options, messages, exit codes. What a package is like is tested elsewhere."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from transformers import GPT2Config, GPT2Model

from hf2khc import __version__
from hf2khc.cli import main as cli
from hf2khc.cli.commands import default_output
from hf2khc.cli.options import BACKENDS, parse_options
from hf2khc.ir.text import format_program, parse_program
from hf2khc.passes.pipeline import stage_names


def run(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hf2khc.cli.main", *words]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    """The code and the text of the one error that a command line ends with; it exits with 1 and prints nothing else."""
    assert cli.main(words) == 1
    out, err = capsys.readouterr()
    assert ("--json" in words or out == "") and err.startswith("error[") and "Traceback" not in err
    return err[len("error[") : err.index("]")], err


# --- without a model -----------------------------------------------------------------------------------------------


def test_help_shows_every_option_and_examples() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    options = (
        "random-init emit-ir emit-source list-passes explain check no-check backend no-weights task set output "
        "trust-remote-code overwrite json quiet traceback seed version"
    )
    assert not [name for name in options.split() if f"--{name}" not in shown.stdout]
    assert "examples:" in shown.stdout and "exit code" in shown.stdout


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys; from hf2khc.cli.main import main\n"
        "try: main(['--version'])\nexcept SystemExit: pass\n"
        "print([n for n in ('torch', 'keras', 'transformers', 'numpy', 'rich') if n in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines() == [f"hf2khc {__version__}", "[]"]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "MODEL is missing"),
        (["m", "--list-passes"], "--list-passes takes no MODEL"),
        (["m", "--set", "a=1"], "--random-init"),
        (["m", "--seed", "1"], "--random-init"),
        (["m", "--check", "--no-weights"], "--check needs weights"),
        (["m", "--no-check", "--backend", "torch"], "--no-check"),
        (["m", "--no-weights", "--backend", "torch"], "--no-weights"),
        (["m", "--json", "--emit-ir"], "--json"),
        (["m", "--emit-ir", "--explain"], "one thing"),
        (["m", "--emit-source", "--overwrite"], "-o DIR"),
        (["m", "--no-such-option"], "--no-such-option"),
        (["m", "n"], "n"),
        (["m", "--seed", "x", "--random-init"], "--seed"),
    ],
)
def test_wrong_usage_is_one_error(capsys: pytest.CaptureFixture[str], words: list[str], part: str) -> None:
    code, text = error_of(capsys, *words)
    assert code == "usage" and part in text and "   = " in text


@pytest.mark.parametrize("item", ["hidden_size", "=3", "a b=3", "a..b=3", ".a=1"])
def test_bad_set(capsys: pytest.CaptureFixture[str], item: str) -> None:
    code, text = error_of(capsys, "m", "--random-init", "--set", item)
    assert code == "bad-set" and repr(item) in text and "FIELD=VALUE" in text


def test_unknown_backend(capsys: pytest.CaptureFixture[str]) -> None:
    assert error_of(capsys, "m", "--backend", "torch,mxnet")[0] == "unknown-backend"
    assert error_of(capsys, "m", "--backend", ",")[0] == "unknown-backend"


def test_backend_that_is_not_installed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf2khc.cli.options.find_spec", lambda name: None if name == "jax" else object())
    code, text = error_of(capsys, "m", "--backend", "jax")
    assert code == "backend-not-installed" and "tensorflow, torch" in text
    assert parse_options(["m"]).backends == ("tensorflow", "torch")


def test_options_are_parsed() -> None:
    words = "m -o out --random-init --set a=1 --set b.c=relu --set d=[1,2] --set e=null --seed 3"
    options = parse_options([*words.split(), "--backend", "torch,jax,torch"])
    assert options.overrides == {"a": 1, "b.c": "relu", "d": [1, 2], "e": None}
    assert (options.model, options.output, options.seed, options.backends) == ("m", Path("out"), 3, ("torch", "jax"))
    assert options.check and options.weights and set(parse_options(["m"]).backends) <= set(BACKENDS)
    assert not parse_options(["m", "--no-weights"]).check


@pytest.mark.parametrize(
    ("words", "stage"), [(["--emit-ir", "m"], "last"), (["m", "--emit-ir=aten"], "aten"), (["m"], None)]
)
def test_emit_ir_does_not_take_the_model_for_its_stage(words: list[str], stage: str | None) -> None:
    options = parse_options(words)
    assert (options.model, options.emit_ir) == ("m", stage)
    assert options.prints_only == (stage is not None)


def test_default_output() -> None:
    assert default_output("openai-community/gpt2") == Path("gpt2-keras")
    assert default_output("some/where/") == Path("where-keras")


# --- errors of a conversion ------------------------------------------------------------------------------------------


def test_output_is_refused_before_anything_is_imported(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    code = (
        "import sys; from hf2khc.cli.main import main\n"
        "print(main(['gpt2', '--random-init', '-o', 'full']), 'torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert shown.stdout == "1 False\n"
    assert shown.stderr.startswith("error[output-not-empty]") and "--overwrite" in shown.stderr
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]


def test_output_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert error_of(capsys, "gpt2", "--random-init", "-o", "file/out")[0] == "output-not-writable"
    assert error_of(capsys, "gpt2", "--random-init", "-o", "file")[0] == "output-exists"


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (["./nowhere"], "model-not-found", "./nowhere"),
        (["some/model-that-is-not-there"], "no-network", "some/model-that-is-not-there"),
        (["llamma", "--random-init"], "unknown-model-type", "llama"),
        (["llama"], "model-not-found", "--random-init"),
        (["gpt2", "--random-init", "--set", "no_such_field=1"], "unknown-field", "no_such_field"),
        (["gpt2", "--random-init", "--set", "n_leyer=1"], "unknown-field", "nearest: n_layer"),
        (["gpt2", "--random-init", "--set", "n_layer=two"], "bad-config", "n_layer"),
        (["gpt2", "--random-init", "--task", "no-such-task"], "unknown-task", "no-such-task"),
    ],
)
def test_wrong_model_leaves_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], code: str, part: str
) -> None:
    found, text = error_of(capsys, *words, "-o", "new/out", "--quiet")
    assert found == code and part in text and list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 in several shards."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    GPT2Model(GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=60, n_positions=32)).save_pretrained(
        folder, max_shard_size="20KB"
    )
    return folder


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*.safetensors"))


def index_of(folder: Path) -> Path:
    return folder / "model.safetensors.index.json"


def only_pickles(folder: Path) -> None:
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model.bin").touch()


def changed_config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


@pytest.mark.parametrize(
    ("damage", "code", "part"),
    [
        (only_pickles, "pickle-weights", "save_pretrained"),
        (lambda folder: shards(folder)[1].unlink(), "shard-missing", "model-00002-of"),
        (lambda folder: os.truncate(shards(folder)[1], 9000), "shard-truncated", "model-00002-of"),
        (changed_config(n_embd=48), "weights-do-not-fit", "h.0.attn.c_attn.weight"),
        (changed_config(n_layer=3), "weights-do-not-fit", "h.2."),
        (changed_config(model_type="gtp2"), "unknown-model-type", "gtp2"),
        (
            changed_config(auto_map={"AutoConfig": "code.Config"}, model_type="own"),
            "remote-code",
            "--trust-remote-code",
        ),
        (lambda folder: (folder / "config.json").unlink(), "config-not-found", "config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "bad-config", "JSON"),
        (changed_config(architectures="GPT2Model"), "bad-config", "architectures"),
        (lambda folder: index_of(folder).write_text('{"weight_map": 3}'), "index-broken", "model.safetensors.index"),
        (lambda folder: index_of(folder).write_text('{"weight_map": {"a": 3}}'), "index-broken", "model.safetensors"),
    ],
)
def test_broken_checkpoint_leaves_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, checkpoint: Path, damage: Callable, code: str, part: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    damage(folder)
    found, text = error_of(capsys, str(folder), "-o", "new/out", "--quiet")
    assert found == code and part in text and "   = " in text
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_random_weights_that_do_not_fit_in_memory(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["llama", "--random-init", "--set", "num_hidden_layers=4000", "-o", "out", "--quiet"]
    code, text = error_of(capsys, *words)
    assert code == "not-enough-memory" and "--set" in text and list(tmp_path.iterdir()) == []


SPECTRAL = """
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

class SpectralConfig(PreTrainedConfig):
    model_type = "spectral"
    vocab_size: int = 50
    hidden_size: int = 16

class SpectralModel(PreTrainedModel):
    config_class = SpectralConfig
    main_input_name = "input_ids"

    def __init__(self, config):
        super().__init__(config)
        self.embed = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.post_init()

    def get_input_embeddings(self):
        return self.embed

    def forward(self, input_ids, **options):
        return BaseModelOutput(last_hidden_state=torch.fft.ihfft(self.embed(input_ids), dim=-1).real)
"""


def test_op_without_a_lowering_in_code_of_the_repository(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "modeling_spectral.py").write_text(SPECTRAL)
    names = {"AutoConfig": "modeling_spectral.SpectralConfig", "AutoModel": "modeling_spectral.SpectralModel"}
    config = {"architectures": ["SpectralModel"], "auto_map": names, "model_type": "spectral"}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"embed.weight": np.ones((50, 16), np.float32)}, folder / "model.safetensors", metadata={"format": "pt"})
    assert error_of(capsys, str(folder), "--quiet")[0] == "remote-code"
    code, text = error_of(capsys, str(folder), "--trust-remote-code", "--quiet")
    assert code == "unsupported-op" and "aten.fft_ihfft" in text and "modeling_spectral.py:24" in text
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_errors_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["./nowhere", "--json", "--quiet"]) == 1
    out, err = capsys.readouterr()
    errors = json.loads(out)["errors"]
    assert [error["code"] for error in errors] == ["model-not-found"] and "error[model-not-found]" in err
    assert set(errors[0]) == {"code", "message", "location", "excerpt", "hint"}


def explode(*args: object, **options: object) -> None:
    raise RuntimeError("broken inside")


def test_unexpected_exception_is_an_internal_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("hf2khc.capture.source.open_source", explode)
    code, text = error_of(capsys, "m", "-o", "out", "--quiet")
    assert code == "internal" and "RuntimeError: broken inside" in text and "--traceback" in text
    assert list(tmp_path.iterdir()) == []
    assert cli.main(["m", "-o", "out", "--quiet", "--traceback"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_interrupt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hf2khc.capture.source.open_source", interrupt)
    assert error_of(capsys, "m", "-o", "out", "--quiet")[0] == "interrupted"
    assert list(tmp_path.iterdir()) == []


# --- looking inside --------------------------------------------------------------------------------------------------

FIELDS = ["n_layer=2", "n_embd=32", "n_head=2", "vocab_size=60", "n_positions=32"]
TINY = ["--random-init", *(word for field in FIELDS for word in ("--set", field))]


def test_every_stage_is_printed_and_parses_back(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["gpt2", *TINY, "--emit-ir=all", "--quiet"]) == 0
    out, err = capsys.readouterr()
    parts = re.split(r"^# (\w+)\n", out, flags=re.MULTILINE)
    stages = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert err == "" and list(stages) == [*stage_names(), "generalise"] and list(tmp_path.iterdir()) == []
    for text in stages.values():
        assert format_program(parse_program(text)).strip() == text.strip()
    assert "aten." in stages["aten"] and "config.n_embd" in stages["generalise"]


def test_model_that_does_not_run_is_one_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, text = error_of(capsys, "gpt2", *TINY, "--set", "n_layer=-1", "-o", "out", "--quiet")
    assert "config" in text and list(tmp_path.iterdir()) == [] and code != "internal"


def test_stage_after_the_passes_has_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gpt2", *TINY, "--emit-ir=generalise", "--quiet"]) == 0
    program = parse_program(capsys.readouterr().out)
    assert "config.n_embd" in format_program(program)


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_verify_of_no_package(capsys: pytest.CaptureFixture[str], folder: str) -> None:
    code, text = error_of(capsys, "verify", folder)
    assert code == "package" and "hf2khc MODEL -o DIR" in text


def test_without_weights_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["gpt2", *TINY, "--no-weights", "--json", "--quiet", "-o", "out"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert err == "" and report == json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["proved"] is None and report["parameters"]["transformers"] == report["parameters"]["keras"]
    assert not list((tmp_path / "out").rglob("*.weights.*"))
