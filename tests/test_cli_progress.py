"""Progress of a conversion on a terminal and elsewhere."""

import io
import time

import pytest
from rich.console import Console

from hf2khc.cli.progress import StageProgress
from hf2khc.driver.stages import StageEvent, StageRecord


def show(events: list[StageEvent], terminal: bool) -> str:
    console = Console(force_terminal=terminal, width=80, file=io.StringIO(), record=True)
    with StageProgress(console) as progress:
        for event in events:
            progress(event)
    return console.export_text()


@pytest.mark.parametrize("terminal", [True, False])
def test_long_stages_leave_a_line_and_short_ones_none(terminal: bool) -> None:
    long, short = StageRecord("capture", 12.34, 0), StageRecord("write", 0.2, 0)
    events = [StageEvent("capture"), StageEvent("capture", long), StageEvent("write"), StageEvent("write", short)]
    text = show(events, terminal)
    assert "capture: 12.3 s" in text and "write:" not in text


def test_running_stage_is_told_after_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf2khc.cli.progress.LONG_SECONDS", 0.01)
    console = Console(force_terminal=False, width=80, file=io.StringIO(), record=True)
    with StageProgress(console) as progress:
        progress(StageEvent("capture"))
        time.sleep(0.2)
    assert "capture ..." in console.export_text()
