"""Processes as forks of one whose imports are done: what takes seconds for a new process takes a hundredth of one.

A fork behaves as `python -m MODULE ARGUMENT` would. Keras is fixed to one backend per process, so there is one server
per further backend, which forks on request.
"""

import contextlib
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, NoReturn

KILLED = -signal.SIGKILL


class Fork:
    """A forked process; the part of `subprocess.Popen` that `hf2khc.process` uses.

    Args:
        work: what the process does; it ends with 1 where that raises.
        environment: variables set in it.
        log: file that takes what it writes; None leaves its output where it goes.
    """

    def __init__(self, work: Callable[[], object], environment: Mapping[str, str], log: Path | None = None):
        reading, writing = os.pipe()
        sys.stdout.flush(), sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            os.close(writing)
            os.dup2(reading, 0)
            run_and_exit(work, environment, log)
        os.close(reading)
        self.stdin: IO[bytes] | None = os.fdopen(writing, "wb", buffering=0)
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._reaped(os.WNOHANG)

    def wait(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        while (code := self._reaped(0)) is None:
            pass
        return code

    def kill(self) -> None:
        """End it."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _reaped(self, options: int) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, options)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code


def run_and_exit(work: Callable[[], object], environment: Mapping[str, str], log: Path | None) -> NoReturn:
    """The child's side of a fork: never returns into the parent's program."""
    code = 1
    try:
        os.environ.update(environment)
        if log is not None:
            stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(stream, 1)
            os.dup2(stream, 2)
            # Whatever the parent's text layers stood for, these stand for the descriptors.
            sys.stdout, sys.stderr = (open(fd, "w", buffering=1, closefd=False) for fd in (1, 2))  # noqa: SIM115
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        work()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def run_module(module: str, argument: str) -> None:
    """What `python -m MODULE ARGUMENT` does, in this process."""
    sys.argv = [module, argument]
    with warnings.catch_warnings():
        # It is imported already; what it holds in both forms are functions.
        warnings.simplefilter("ignore", RuntimeWarning)
        runpy.run_module(module, run_name="__main__")


class Starter:
    """Starts modules as forks: of this process, or of the server of another backend.

    Args:
        backend: the Keras backend of this process.
        servers: address of the server by further backend; a backend without one gets new processes.
        otherwise: starts those.
    """

    def __init__(self, backend: str, servers: Mapping[str, Path], otherwise: Callable):
        self.backend, self.servers, self.otherwise = backend, servers, otherwise

    def __call__(self, module: str, argument: str, environment: Mapping[str, str], log: Path):
        backend = environment.get("KERAS_BACKEND", self.backend)
        if backend == self.backend:
            return Fork(lambda: run_module(module, argument), environment, log)
        if backend in self.servers:
            return Remote(self.servers[backend], module, argument, environment, log)
        return self.otherwise(module, argument, environment, log)


class Remote:
    """A process that a server forked; the server ends it when the connection closes."""

    def __init__(self, address: Path, module: str, argument: str, environment: Mapping[str, str], log: Path):
        self.stdin: IO[bytes] | None = None
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(address))
        job = {"module": module, "argument": argument, "environment": dict(environment), "log": str(log)}
        self._connection.sendall(json.dumps(job).encode() + b"\n")
        self._code: int | None = None

    def wait(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        if self._code is None:
            with self._connection.makefile("r") as answers:
                self._code = int(answers.readline() or KILLED)
        return self._code

    def poll(self) -> int | None:
        """The exit code once it was waited for."""
        return self._code

    def kill(self) -> None:
        """End it."""
        self._connection.close()


def import_everything() -> None:
    """Import all of hf2khc that runs on this process's backend, so that forks find it done and source may change."""
    import hf2khc

    for found in pkgutil.walk_packages(hf2khc.__path__, "hf2khc."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)


def folder_of_sockets() -> Path:
    """A folder whose path is short enough for the address of a socket."""
    return Path(tempfile.mkdtemp(prefix="zoo-"))


def wait_for(address: Path, alive: Callable[[], bool], seconds: float = 120) -> bool:
    """Wait until a server listens; False when it ended before, or in time did not."""
    end = time.monotonic() + seconds
    while not address.exists() and alive() and time.monotonic() < end:
        time.sleep(0.1)
    return address.exists()
