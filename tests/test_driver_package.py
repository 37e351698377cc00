"""The package on disk: one rename or nothing, whatever ends the run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hf2khc.diagnostics import ConversionError
from hf2khc.driver import package
from hf2khc.driver.package import REPORT_FILE, staged

SLOW_RUN = """
import sys, time
from pathlib import Path
from hf2khc.driver.package import staged
try:
    with staged(Path(sys.argv[1])) as staging:
        (staging / "half").write_text("half")
        print("ready", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    sys.exit(1)
"""


def code_of(error: pytest.ExceptionInfo[ConversionError]) -> str:
    return error.value.diagnostics[0].code


def start(target: Path) -> subprocess.Popen[str]:
    run = subprocess.Popen([sys.executable, "-c", SLOW_RUN, str(target)], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None and run.stdout.readline() == "ready\n"
    return run


def test_package_appears_complete_and_alone(tmp_path: Path) -> None:
    target = tmp_path / "new" / "deep" / "package"
    with staged(target) as staging:
        (staging / "file").write_text("text")
        assert not target.exists() and staging.parent == target.parent
    assert [path.name for path in target.parent.iterdir()] == ["package"]
    assert (target / "file").read_text() == "text"


def test_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with staged(tmp_path / "out") as staging:
        (staging / "file").touch()
    assert (tmp_path / "out" / "file").exists()


def test_exception_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), staged(tmp_path / "new" / "out") as staging:
        (staging / "file").touch()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    run = start(tmp_path / "out")
    run.send_signal(number)
    assert run.wait(timeout=20) == 1
    assert list(tmp_path.iterdir()) == []


def test_killed_run_leaves_no_package_and_the_next_run_clears_up(tmp_path: Path) -> None:
    run = start(tmp_path / "out")
    run.kill()
    run.wait(timeout=20)
    left = list(tmp_path.iterdir())
    assert len(left) == 1 and left[0].name.startswith(".out.hf2khc-")
    with staged(tmp_path / "out") as staging:
        assert list(tmp_path.iterdir()) == [staging]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_living_run_is_not_cleared(tmp_path: Path) -> None:
    run = start(tmp_path / "out")
    try:
        with staged(tmp_path / "out"):
            assert len(list(tmp_path.iterdir())) == 2
        assert any((path / "half").exists() for path in tmp_path.iterdir())
    finally:
        run.kill()
        run.wait(timeout=20)


def test_full_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(ConversionError) as error, staged(tmp_path):
        raise AssertionError("the body must not run")
    assert code_of(error) == "output-not-empty"
    with pytest.raises(ConversionError) as error, staged(tmp_path, overwrite=True):
        raise AssertionError("the body must not run")
    assert code_of(error) == "output-not-a-package"
    assert (tmp_path / "mine").exists()


def test_overwrite_replaces_a_package_only_when_the_new_one_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with staged(target) as staging:
        (staging / REPORT_FILE).write_text("old")
    with pytest.raises(ZeroDivisionError), staged(target, overwrite=True):
        raise ZeroDivisionError
    assert (target / REPORT_FILE).read_text() == "old"
    with staged(target, overwrite=True) as staging:
        (staging / REPORT_FILE).write_text("new")
    assert (target / REPORT_FILE).read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_folder_that_fills_up_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(ConversionError) as error, staged(target):
        target.mkdir()
        (target / "theirs").touch()
    assert code_of(error) == "output-not-empty"
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (target / "theirs").exists()


def test_failed_rename_restores_the_old_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    with staged(target) as staging:
        (staging / REPORT_FILE).write_text("old")
    rename = Path.rename

    def refuse(self: Path, to: Path) -> Path:
        if to == target and "-old-" not in self.name:
            raise PermissionError(13, "Permission denied")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ConversionError) as error, staged(target, overwrite=True):
        pass
    assert code_of(error) == "output-not-writable"
    assert (target / REPORT_FILE).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_unwritable_places_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    places = {"output-exists": tmp_path / "file", "output-not-writable": tmp_path / "file" / "out"}
    if os.path.isdir("/proc/self"):
        with pytest.raises(ConversionError) as error, staged(Path("/proc/hf2khc-out")):
            pass
        assert code_of(error) == "output-not-writable"
    for code, place in places.items():
        with pytest.raises(ConversionError) as error, staged(place):
            pass
        assert code_of(error) == code and error.value.diagnostics[0].hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_parent(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(ConversionError) as error, staged(tmp_path / "out"):
        pass
    assert code_of(error) == "output-not-writable"


def test_signals_are_restored(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in package._SIGNALS]
    with staged(tmp_path / "out"):
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(number) for number in package._SIGNALS] == before


def test_second_interrupt_does_not_stop_the_cleaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remove = package.shutil.rmtree

    def interrupted(*args: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        remove(*args, **options)

    monkeypatch.setattr(package.shutil, "rmtree", interrupted)
    with pytest.raises(ZeroDivisionError), staged(tmp_path / "out"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
