"""The servers that fork, one for each Keras backend, and what they fork as this process sees it."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from hf2khc.process import QUIET, Child, new_process, start_with, starts_anew

KILLED = -signal.SIGKILL
# Seconds for a server to end a fork.
_PATIENCE = 1.0
TORCH = "torch"
# What children of each backend import. The twin and the model in transformers need torch as well.
_PACKAGE = ("hf2khc.check.run",)
MODULES = {TORCH: (*_PACKAGE, "hf2khc.check.gradients", "hf2khc.driver.compile", "hf2khc.driver.twin")}


@contextmanager
def forked_children() -> Iterator[None]:
    """Inside the block children on torch are forks, where nothing else has been said about them (`start_with`).

    A conversion has one child on each other backend: a server, which stays, would only hold its memory.
    """
    if not starts_anew():
        yield
        return
    with Servers() as servers:
        servers.start(TORCH)

        def start(module: str, argument: str, environment: Mapping[str, str], log: Path) -> Child:
            starter = servers if backend_of(environment) == TORCH else new_process
            return starter(module, argument, environment, log)

        with start_with(start):
            yield


def backend_of(environment: Mapping[str, str]) -> str:
    """The Keras backend of a child: torch where nothing is said, as for the model in transformers."""
    return environment.get("KERAS_BACKEND", TORCH)


class Servers:
    """Starts `python -m MODULE ARGUMENT` as a fork of the server of its backend; a context manager that ends them.

    A server starts when it is first asked for. Processes forked from this one share the servers that run by then.
    """

    def __init__(self) -> None:
        self._servers: dict[str, _Server] = {}

    def start(self, backend: str) -> "_Server":
        """The server of a backend, which imports from now on if it does not run yet."""
        if backend not in self._servers:
            self._servers[backend] = _Server(backend)
        return self._servers[backend]

    def wait_until_ready(self, backend: str) -> None:
        """Wait until everything is imported; only a measurement needs that."""
        Remote(self.start(backend), {}, Path(os.devnull)).wait()

    def __call__(self, module: str, argument: str, environment: Mapping[str, str], log: Path) -> Child:
        job = {
            "module": module, "argument": argument, "environment": {**os.environ, **environment},
            "folder": os.getcwd(), "log": str(log),
        }  # fmt: skip
        return Remote(self.start(backend_of(environment)), job, log)

    def __enter__(self) -> "Servers":
        return self

    def __exit__(self, *exception: object) -> None:
        for server in self._servers.values():
            server.end()


class _Server:
    """The process that forks, and this side of the socket that takes requests."""

    def __init__(self, backend: str):
        self.requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        modules = ",".join(MODULES.get(backend, _PACKAGE))
        command = [sys.executable, "-P", "-m", "hf2khc.forking.server", str(theirs.fileno()), modules]
        with theirs:
            self.process = subprocess.Popen(
                command, env={**os.environ, **QUIET, "KERAS_BACKEND": backend}, pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            )  # fmt: skip

    def said(self) -> bytes:
        """What it wrote."""
        self.log.seek(0)
        return self.log.read()

    def end(self) -> None:
        """End it, and with it what it forked."""
        self.requests.close()
        self.process.terminate()
        self.process.wait()


class Remote:
    """A process that a server forked; it is ended when this side of its connection closes."""

    def __init__(self, server: _Server, job: Mapping[str, object], log: Path):
        self._server, self._log = server, log
        self._code: int | None = None
        self._connection, theirs = socket.socketpair()
        with theirs, suppress(OSError):  # a server that has ended: `wait` says so
            socket.send_fds(server.requests, [json.dumps(job).encode()], [theirs.fileno()])

    def wait(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        if self._code is None:
            answer = self._connection.recv(64)
            if not answer:
                # The server itself died, at an import or for want of memory.
                self._log.write_bytes(self._server.said())
            self._code = int(answer or KILLED)
            self._connection.close()
        return self._code

    def kill(self) -> None:
        """End it, and see it end: its folder may be deleted then."""
        if self._code is not None:
            return
        self._code = KILLED
        with suppress(OSError):  # a server that still imports has begun nothing and does not answer
            self._connection.shutdown(socket.SHUT_WR)
            self._connection.settimeout(_PATIENCE)
            self._connection.recv(64)
        self._connection.close()
