"""The second process, where the twin is compiled: started early, so that both processes import at the same time."""

import pickle
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hf2khc.diagnostics import ConversionError, fail
from hf2khc.process import start_module

if TYPE_CHECKING:
    from hf2khc.driver.twin import Twinned


class TwinWorker:
    """A process that imports what a twin needs and waits for a job; a context manager that ends it with its block.

    This module imports neither torch nor keras: the process is to start before they are imported here.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hf2khc-twin-")
        self._path, self._jobs = Path(self._folder.name), 0
        # The arrays of a twin are tiny: a second thread costs far more than it saves, above all beside other work.
        self._process = start_module(
            "hf2khc.driver.twin_process", self._folder.name, {"OMP_NUM_THREADS": "1"}, self._path / "log"
        )

    def wait_until_ready(self) -> None:
        """Wait until everything is imported; only a measurement needs that."""
        while self._process.poll() is None and not (self._path / "ready").exists():
            time.sleep(0.02)

    def submit(self, *job: Any) -> None:
        """Hand over the arguments of `compile_twin`, once or again when the result is there."""
        self._jobs += 1
        # The class may come from a folder that only this process searches, so the job itself is read second.
        (self._path / f"job-{self._jobs}").write_bytes(pickle.dumps((sys.path, pickle.dumps(job))))
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it died: `result` says so
            self._process.stdin.write(f"{self._jobs}\n".encode())
            self._process.stdin.flush()

    def result(self) -> "Twinned":
        """Wait for the twin of the last job.

        Raises:
            ConversionError: a pass changed what the twin computes, or the process died.
        """
        answer = self._path / f"answer-{self._jobs}"
        while self._process.poll() is None and not answer.exists():
            time.sleep(0.02)
        if not answer.exists():
            log = (self._path / "log").read_text(errors="replace")
            raise fail("twin", "the process that validates the passes died", excerpt=log[-2000:])
        found = pickle.loads(answer.read_bytes())
        if isinstance(found, ConversionError):
            raise found
        return found

    def finish(self) -> None:
        """Let the process end: there is no further job, and its memory is wanted."""
        with suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()
        self.finish()
        self._folder.cleanup()
