"""Progress on stderr: the running stage with a clock on a terminal, one line per long stage elsewhere."""

import sys
import threading
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from hf2khc.driver.stages import StageEvent

LONG_SECONDS = 2.0


class StageProgress:
    """Shows the stages of a conversion; call it with each `StageEvent`. A context manager."""

    def __init__(self, console: Console | None = None):
        self._console = console or Console(stderr=True, highlight=False)
        self._live = self._bar() if self._console.is_terminal else None
        self._timer: threading.Timer | None = None

    def __call__(self, event: StageEvent) -> None:
        if event.record is None:
            self._begin(event.name)
        else:
            self._end(event.name, event.record.seconds)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cancel()
        if self._live is not None:
            self._live.stop()

    def _bar(self) -> Progress:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        return Progress(*columns, console=self._console, transient=True)

    def _begin(self, name: str) -> None:
        if self._live is not None:
            self._live.add_task(name)
            return
        # Elsewhere than on a terminal a short stage is not worth a line.
        self._timer = threading.Timer(LONG_SECONDS, self._line, (f"{name} ...",))
        self._timer.daemon = True
        self._timer.start()

    def _end(self, name: str, seconds: float) -> None:
        self._cancel()
        if self._live is not None:
            for task in self._live.tasks:
                self._live.remove_task(task.id)
        if seconds >= LONG_SECONDS:
            self._line(f"{name}: {seconds:.1f} s")

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False)
        sys.stderr.flush()
