"""Forks on request, of a process that has imported one Keras backend: `python -m hf2khc.forking.server FD MODULES`.

FD is a socket that takes requests, MODULES (with commas) what is imported first. A request is JSON (module, argument,
environment, folder, log) with a socket beside it: the answer there is a line with the exit code, and the fork is ended
when the other side closes it. The server ends when nobody holds the other end of FD any more.
"""

import importlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from hf2khc.forking.fork import Fork, ready_to_fork, run_module

LONGEST_REQUEST = 2**20


def main(descriptor: str, modules: str) -> None:
    """Import, then serve until the last client has gone."""
    # Ctrl-C reaches every process of a terminal; the client then closes what it waits for.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for module in modules.split(","):
        importlib.import_module(module)
    ready_to_fork()
    with suppress(SystemExit):
        _Server(socket.socket(fileno=int(descriptor))).run()
    os._exit(0)  # taking down what was imported takes a second, and the client waits


class _Server:
    """The forks that run, by the connection that waits for each."""

    def __init__(self, requests: socket.socket):
        self.requests, self.forks = requests, dict[socket.socket, Fork]()
        # A child's end interrupts no `select`; a byte on this pair does.
        self.ended, waking = socket.socketpair()
        self.ended.setblocking(False)
        waking.setblocking(False)
        self.waking = waking
        signal.set_wakeup_fd(waking.fileno())
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def run(self) -> None:
        """Serve until the last client has gone or a signal ends this; then end every fork."""
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())
        try:
            self._serve()
        finally:
            for connection in list(self.forks):
                self._close(connection)

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self.requests, self.ended, *self.forks], [], [])
            for connection in [each for each in ready if each in self.forks]:
                self._close(connection)  # nothing is said there but that nobody waits any more
            if self.requests in ready and not self._accept():
                return
            self._answer()

    def _accept(self) -> bool:
        """Start the fork of a request; False when the last client has gone."""
        text, descriptors, _, _ = socket.recv_fds(self.requests, LONGEST_REQUEST, 1)
        if not text:
            return False
        job, connection = json.loads(text), socket.socket(fileno=descriptors[0])
        if not job:
            with connection:
                self._tell(connection, 0)
            return True
        self.forks[connection] = Fork(lambda: self._work(connection, job), job["environment"], Path(job["log"]))
        return True

    def _work(self, connection: socket.socket, job: Mapping[str, str]) -> None:
        """The fork's side of a request."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        # Held open here, they would outlive those that are to see their end.
        for each in (self.requests, self.ended, self.waking, connection, *self.forks):
            each.close()
        tempfile.tempdir = None  # an import may have asked for it
        os.chdir(job["folder"])
        run_module(job["module"], job["argument"])

    def _answer(self) -> None:
        """Tell the end of each fork that has ended."""
        with suppress(BlockingIOError):
            self.ended.recv(4096)
        for connection, fork in list(self.forks.items()):
            code = fork.poll()
            if code is not None:
                self._tell(connection, code)
                self._close(connection)

    @staticmethod
    def _tell(connection: socket.socket, code: int) -> None:
        with suppress(OSError):
            connection.sendall(f"{code}\n".encode())

    def _close(self, connection: socket.socket) -> None:
        fork = self.forks.pop(connection)
        fork.kill()
        fork.wait()
        connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
