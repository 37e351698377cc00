"""Peak memory of a stretch of time: this process and the processes it starts, together.

Stages of the pipeline run in processes of their own, so the peak of this process alone would not be the truth. On Linux
the memory of the whole tree is sampled, pages that forks share counted once, and the kernel's own high-water mark
catches what falls between two samples; elsewhere only the high-water mark since the start of the process is known.
"""

import resource
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc/self")
_INTERVAL = 0.1
# Samples take at most so much of the time: the kernel walks the pages of every process.
_SHARE = 0.1


def _bytes(file: Path, field: str) -> int:
    for line in file.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


def tree(process: Path) -> Iterator[Path]:
    """The folders below /proc of a process and its descendants; one that ends meanwhile is left out."""
    children: list[str] = []
    try:
        for task in (process / "task").iterdir():
            with suppress(OSError):  # a thread that ends meanwhile
                children += (task / "children").read_text().split()
    except OSError:
        return
    yield process
    for pid in children:
        yield from tree(_PROC.parent / pid)


def tree_bytes(process: Path) -> int:
    """Resident bytes of a process and its descendants, those they share counted for each.

    A process that ends meanwhile counts nothing.
    """
    return _sum(tree(process), "status", "VmRSS")


def _sum(processes: Iterable[Path], file: str, field: str) -> int:
    total = 0
    for each in processes:
        with suppress(OSError, ValueError):
            total += _bytes(each / file, field)
    return total


def _together() -> int:
    """Resident bytes of this process and its descendants: of what forks share, each counts its part.

    This process is no fork of theirs, and the kernel knows its size without walking its pages.
    """
    others = (process for process in tree(_PROC) if process != _PROC)
    return _bytes(_PROC / "status", "VmRSS") + _sum(others, "smaps_rollup", "Pss")


def _since_start() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class PeakMemory:
    """Watches the memory from its creation on; `take` returns the peak in bytes and begins anew."""

    def __init__(self) -> None:
        self._sampled = 0
        self._can_reset = self._reset_mark()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if self._can_reset:
            self._thread = threading.Thread(target=self._watch, name="hf2khc-memory", daemon=True)
            self._thread.start()

    def take(self) -> int:
        """The peak in bytes since the last call."""
        if not self._can_reset:
            return _since_start()
        peak = max(self._sampled, _bytes(_PROC / "status", "VmHWM"), _together())
        self._sampled = 0
        self._reset_mark()
        return peak

    def close(self) -> None:
        """Ends the watch."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        pause = _INTERVAL
        while not self._stop.wait(pause):
            began = time.perf_counter()
            self._sampled = max(self._sampled, _together())
            pause = max(_INTERVAL, (time.perf_counter() - began) / _SHARE)

    @staticmethod
    def _reset_mark() -> bool:
        try:
            (_PROC / "clear_refs").write_text("5")  # Sets VmHWM back to the present size, and nothing else.
        except OSError:
            return False
        return True
