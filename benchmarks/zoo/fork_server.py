"""Forks on request, of a process that has imported one Keras backend: `python -m benchmarks.zoo.fork_server ADDRESS`.

A request is a line of JSON: module, argument, environment, log. The answer is the exit code; a connection that closes
before it ends the fork. The server ends with its stdin.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
from pathlib import Path

from benchmarks.zoo.forks import Fork, run_module

# The modules that run under a backend of their own.
MODULES = ("hf2khc.check.run",)


def main(address: str) -> None:
    """Import, then serve until stdin ends."""
    for module in MODULES:
        importlib.import_module(module)
    with socket.socket(socket.AF_UNIX) as listening:
        unborn = Path(f"{address}.unborn")
        listening.bind(str(unborn))
        listening.listen()
        unborn.rename(address)
        while True:
            ready, _, _ = select.select([listening, 0], [], [])
            if 0 in ready:
                return
            connection, _ = listening.accept()
            serve_in_fork(connection)


def serve_in_fork(connection: socket.socket) -> None:
    """Handle one request in a process of its own, which the system reaps: the server only accepts."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if os.fork():
        connection.close()
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    handle(connection)
    os._exit(0)


def handle(connection: socket.socket) -> None:
    """Run one request in a fork of this one and send its exit code."""
    with connection, connection.makefile("r") as lines:
        job = json.loads(lines.readline())
        work = Fork(lambda: run_module(job["module"], job["argument"]), job["environment"], Path(job["log"]))
        threading.Thread(target=_end_with, args=(connection, work), daemon=True).start()
        code = work.wait()
        with contextlib.suppress(OSError):
            connection.sendall(f"{code}\n".encode())


def _end_with(connection: socket.socket, work: Fork) -> None:
    with contextlib.suppress(OSError):
        connection.recv(1)
        os.kill(work.pid, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
