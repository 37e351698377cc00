"""Children as forks of servers: what arrives there, how they end, and what ends them."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hf2khc.diagnostics import ConversionError
from hf2khc.forking import servers as forking
from hf2khc.forking.servers import Servers, forked_children
from hf2khc.process import new_process, run_job, start_module, start_with, starts_anew

BACKEND = {"KERAS_BACKEND": "numpy"}
ASKED = """
import os, sys, time
print(sys.argv[1], os.environ["GIVEN"], os.getcwd(), "keras" in sys.modules, "sklearn" in sys.modules, flush=True)
open("pid", "w").write(str(os.getpid()))
time.sleep(float(os.environ.get("SLEEP", 0)))
sys.exit(int(os.environ.get("CODE", 0)))
"""


def _search(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Write the module `asked` where servers that start from now on find it."""
    (folder / "asked.py").write_text(ASKED)
    patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")])))


@pytest.fixture(scope="module")
def servers(tmp_path_factory) -> Iterator[Servers]:
    """Servers that find the module `asked`."""
    folder = tmp_path_factory.mktemp("modules")
    with pytest.MonkeyPatch.context() as patch, Servers() as found:
        _search(patch, folder)
        found.wait_until_ready(BACKEND["KERAS_BACKEND"])
        yield found


@pytest.fixture
def start(servers, tmp_path, monkeypatch):
    """Starts `asked` in a fork, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda **given: servers("asked", "argument", {**BACKEND, "GIVEN": "given", **given}, tmp_path / "log")


def _await(path: Path) -> str:
    while not path.exists() or not path.read_text():
        time.sleep(0.02)
    return path.read_text()


def test_a_fork_is_the_module_run_as_a_program_with_the_imports_done(start, tmp_path):
    assert start().wait() == 0
    assert (tmp_path / "log").read_text() == f"argument given {tmp_path} True False\n"


def test_a_fork_gives_its_exit_code(start):
    child = start(CODE="3")
    assert child.wait() == child.wait() == 3


def test_forks_run_side_by_side_and_a_killed_one_ends(start, tmp_path):
    sleeping = start(SLEEP="60")
    pid = int(_await(tmp_path / "pid"))
    assert start().wait() == 0
    assert Path(f"/proc/{pid}").exists()  # the first one still sleeps
    sleeping.kill()
    assert sleeping.wait() < 0
    _await_end(pid)


def test_the_end_of_a_server_ends_its_forks(tmp_path, monkeypatch):
    _search(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    with Servers() as servers:
        child = servers("asked", "argument", {**BACKEND, "GIVEN": "given", "SLEEP": "60"}, tmp_path / "log")
        pid = int(_await(tmp_path / "pid"))
    assert child.wait() < 0
    _await_end(pid)


def _await_end(pid: int) -> None:
    end = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_server_that_cannot_import_says_why(monkeypatch):
    monkeypatch.setattr(forking, "_PACKAGE", ("hf2khc.no_such_module",))
    with Servers() as servers, start_with(servers), pytest.raises(ConversionError, match="no_such_module"):
        run_job("hf2khc.check.run", {}, BACKEND)


def test_children_are_forks_inside_the_block_alone():
    with start_with(new_process):
        assert starts_anew()
        with forked_children():
            assert not starts_anew()
        assert starts_anew()


def test_whoever_says_how_children_start_is_not_overruled():
    started = object()
    with start_with(lambda *arguments: started), forked_children():  # type: ignore[arg-type, return-value]
        assert start_module("module", "argument", {}, Path("log")) is started
