"""The second process, where the twin is compiled while this one compiles the model."""

import pickle
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hf2khc.diagnostics import ConversionError, fail
from hf2khc.process import Child, start_module

if TYPE_CHECKING:
    from hf2khc.driver.twin import Twinned


class TwinWorker:
    """Compiles one twin at a time in a process of its own; a context manager that ends it with its block."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hf2khc-twin-")
        self._path, self._jobs = Path(self._folder.name), 0
        self._process: Child | None = None

    def submit(self, *job: Any) -> None:
        """Hand over the arguments of `compile_twin`; what a job before gave, or would have given, is lost."""
        self._end()
        self._jobs += 1
        # The class may come from a folder that only this process searches, so the job itself is read second.
        self._job.write_bytes(pickle.dumps((sys.path, pickle.dumps(job))))
        self._process = start_module("hf2khc.driver.twin_process", str(self._job), {}, self._path / "log")

    def result(self) -> "Twinned":
        """Wait for the twin of the last job.

        Raises:
            ConversionError: a pass changed what the twin computes, or the process died.
        """
        assert self._process is not None
        self._process.wait()
        answer = Path(f"{self._job}.answer")
        if not answer.exists():
            log = (self._path / "log").read_text(errors="replace")
            raise fail("twin", "the process that validates the passes died", excerpt=log[-2000:])
        found = pickle.loads(answer.read_bytes())
        if isinstance(found, ConversionError):
            raise found
        return found

    @property
    def _job(self) -> Path:
        return self._path / f"job-{self._jobs}"

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()
        self._folder.cleanup()
