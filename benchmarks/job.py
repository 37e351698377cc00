"""A measurement in a process of its own: a job in JSON goes in, its answer comes out."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class JobFailed(Exception):
    """A measurement that ended without an answer; its text is what the process printed on stderr."""


def run_job(module: str, job: Mapping[str, Any], backend: str) -> dict[str, Any]:
    """The answer of `python -m MODULE JOB.json` under a Keras backend.

    Raises:
        JobFailed: the process fails.
    """
    with tempfile.TemporaryDirectory(prefix="hf2khc-bench-") as folder:
        path = Path(folder, "job.json")
        path.write_text(json.dumps(job), encoding="utf-8")
        environment = {**os.environ, "KERAS_BACKEND": backend}
        command = [sys.executable, "-m", module, str(path)]
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        if done.returncode:
            raise JobFailed(done.stderr)
        return json.loads(Path(f"{path}.result").read_text(encoding="utf-8"))


def serve(work: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """The process's side: do the job that the command line names, and write the answer beside it."""
    path = Path(sys.argv[1])
    answer = work(json.loads(path.read_text(encoding="utf-8")))
    Path(f"{path}.result").write_text(json.dumps(answer), encoding="utf-8")
