"""Several jobs at a time, each in a fork of its own with a limit on time and memory."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf2khc.driver.memory import tree_bytes
from hf2khc.forking.fork import Fork

POLL = 0.2


@dataclass(frozen=True)
class Limits:
    """What a job may take.

    Args:
        seconds: of the wall clock.
        bytes: resident memory of its process and all below it, pages that they share counted once for each.
    """

    seconds: float
    bytes: int


@dataclass(frozen=True)
class Ended:
    """A job that ended: its exit code, what ended it (`time-limit`, `memory-limit` or nothing), seconds, output."""

    key: Any
    code: int
    reason: str
    seconds: float
    log: str


class _Running:
    """One job: a process group with a folder for its temporary files."""

    def __init__(self, key: Any, work: Callable[[], object]):
        self.key, self.began, self.reason = key, time.monotonic(), ""
        self.folder = Path(tempfile.mkdtemp(prefix="zoo-"))
        self.log = self.folder / "log"

        def alone() -> None:
            os.setsid()
            tempfile.tempdir = str(self.folder)
            work()

        self.process = Fork(alone, {"TMPDIR": str(self.folder)}, self.log)

    def over(self, limits: Limits) -> str:
        """Which limit it is over, or nothing."""
        if time.monotonic() - self.began > limits.seconds:
            return "time-limit"
        return "memory-limit" if tree_bytes(Path("/proc", str(self.process.pid))) > limits.bytes else ""

    def end(self, reason: str) -> None:
        """End all its processes."""
        self.reason = reason
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def ended(self) -> Ended | None:
        """What came of it, once it has ended; its folder is then gone."""
        code = self.process.poll()
        if code is None:
            return None
        self.end(self.reason)  # what it left running
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        shutil.rmtree(self.folder, ignore_errors=True)
        return Ended(self.key, code, self.reason, time.monotonic() - self.began, text)


def run_all(jobs: Iterable[tuple[Any, Callable[[], object]]], workers: int, limits: Limits) -> Iterator[Ended]:
    """Run jobs in forks, `workers` at a time; each as it ends.

    Args:
        jobs: a key and what to do.
        workers: how many at a time.
        limits: of each.
    """
    waiting, running = iter(jobs), []
    try:
        while True:
            while len(running) < workers and (job := next(waiting, None)) is not None:
                running.append(_Running(*job))
            if not running:
                return
            time.sleep(POLL)
            for one in list(running):
                if not one.reason and (reason := one.over(limits)):
                    one.end(reason)
                if (ended := one.ended()) is not None:
                    running.remove(one)
                    yield ended
    finally:
        for one in running:
            one.end("stopped")
            one.process.wait()
            one.ended()
