"""The stages of a conversion: seconds and peak memory of each, told to whoever shows the progress.

    with StageTimer(on_event) as stages:
        stages("capture")
        ...
        stages("check")
        ...
    stages.records

A call begins the named stage and ends the one before; a stage that comes again adds to its record.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from hf2khc.driver.memory import PeakMemory


@dataclass(frozen=True)
class StageRecord:
    """What one stage took: wall-clock seconds, and the peak memory of all processes in bytes."""

    name: str
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class StageEvent:
    """A stage begins (`record` is None) or has ended."""

    name: str
    record: StageRecord | None = None


class StageTimer:
    """Times the stages; a context manager that ends the last stage and the watch on the memory."""

    def __init__(self, on_event: Callable[[StageEvent], None] | None = None):
        self._on_event = on_event or (lambda event: None)
        self._records: dict[str, StageRecord] = {}
        self._name: str | None = None
        self._began = 0.0
        self._memory = PeakMemory()

    @property
    def records(self) -> tuple[StageRecord, ...]:
        """The ended stages, in the order in which they first began."""
        return tuple(self._records.values())

    def __call__(self, name: str) -> None:
        """Ends the running stage and begins `name`."""
        self.end()
        self._memory.take()
        self._name, self._began = name, time.perf_counter()
        self._on_event(StageEvent(name))

    def end(self) -> None:
        """Ends the running stage, if there is one."""
        if self._name is None:
            return
        name, self._name = self._name, None
        before = self._records.get(name, StageRecord(name, 0.0, 0))
        seconds = time.perf_counter() - self._began
        record = StageRecord(name, before.seconds + seconds, max(before.peak_bytes, self._memory.take()))
        self._records[name] = record
        self._on_event(StageEvent(name, record))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()
        self._memory.close()
