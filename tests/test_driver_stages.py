"""The stage timer: seconds, peak memory, events."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hf2khc.driver.memory import tree
from hf2khc.driver.stages import StageEvent, StageTimer

MIB = 2**20
CHILD = "x = bytearray(200 * 2**20); import time; time.sleep(0.5)"
# Processes of their own: in this one servers of other tests come and go, and are large to be sampled.
SMALL_LARGE_SMALL = """
from hf2khc.driver.stages import StageTimer
with StageTimer() as stages:
    stages("small")
    stages("large")
    block = bytearray(200 * 2**20)
    del block
    stages("small again")
print(*(record.peak_bytes for record in stages.records))
"""
ALONE_CHILD = f"""
import subprocess, sys
from hf2khc.driver.stages import StageTimer
with StageTimer() as stages:
    stages("alone")
    stages("child")
    subprocess.run([sys.executable, "-c", {CHILD!r}], check=True)
print(*(record.peak_bytes for record in stages.records))
"""


def peaks(script: str) -> list[int]:
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return [int(number) for number in run.stdout.split()]


def test_stages_are_timed_and_told() -> None:
    events: list[StageEvent] = []
    with StageTimer(events.append) as stages:
        stages("first")
        time.sleep(0.05)
        stages("second")
        stages("first")
    first, second = stages.records
    assert (first.name, second.name) == ("first", "second")
    assert 0.05 <= first.seconds < 1 and second.seconds < 0.5
    assert [(event.name, event.record is None) for event in events] == [
        ("first", True), ("first", False), ("second", True), ("second", False), ("first", True), ("first", False),
    ]  # fmt: skip


def test_last_stage_ends_on_an_exception() -> None:
    stages = StageTimer()
    try:
        with stages:
            stages("only")
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert [record.name for record in stages.records] == ["only"]


def test_peak_belongs_to_its_stage() -> None:
    small, large, again = peaks(SMALL_LARGE_SMALL)
    assert large - small > 180 * MIB and large - again > 180 * MIB


def test_peak_counts_child_processes() -> None:
    alone, child = peaks(ALONE_CHILD)
    assert child - alone > 180 * MIB


def test_a_thread_that_ends_meanwhile_loses_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text

    def gone(path: Path, *arguments: Any, **keywords: Any) -> str:
        if path.name == "children":
            raise FileNotFoundError(path)
        return read(path, *arguments, **keywords)

    monkeypatch.setattr(Path, "read_text", gone)
    assert list(tree(Path("/proc/self"))) == [Path("/proc/self")]
    with StageTimer() as stages:
        stages("alone")
    assert stages.records[0].peak_bytes > MIB
