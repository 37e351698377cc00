"""The command line: options, messages, exit codes. What a package is like is tested elsewhere."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from hf2khc import __version__
from hf2khc.cli import main as cli
from hf2khc.cli.commands import default_output
from hf2khc.cli.options import BACKENDS, parse_options
from hf2khc.cli.progress import StageProgress
from hf2khc.driver.stages import StageEvent, StageRecord


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
        (["gpt2", "--random-init", "--task", "no-such-task"], "unknown-task", "no-such-task"),
    ],
)
def test_wrong_model_leaves_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], code: str, part: str
) -> None:
    found, text = error_of(capsys, *words, "-o", "new/out", "--quiet")
    assert found == code and part in text and list(tmp_path.iterdir()) == []


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


# --- progress ------------------------------------------------------------------------------------------------------


def show(events: list[StageEvent], terminal: bool) -> str:
    console = Console(force_terminal=terminal, width=80, file=io.StringIO(), record=True)
    with StageProgress(console) as progress:
        for event in events:
            progress(event)
    return console.export_text()


@pytest.mark.parametrize("terminal", [True, False])
def test_long_stages_leave_a_line_and_short_ones_none(terminal: bool) -> None:
    long, short = StageRecord("capture", 12.34, 0), StageRecord("write", 0.2, 0)
    events = [StageEvent("capture"), StageEvent("capture", long), StageEvent("write"), StageEvent("write", short)]
    text = show(events, terminal)
    assert "capture: 12.3 s" in text and "write:" not in text


def test_running_stage_is_told_after_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf2khc.cli.progress.LONG_SECONDS", 0.01)
    console = Console(force_terminal=False, width=80, file=io.StringIO(), record=True)
    with StageProgress(console) as progress:
        progress(StageEvent("capture"))
        time.sleep(0.2)
    assert "capture ..." in console.export_text()
