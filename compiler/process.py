"""Work that needs a process of its own, because a Keras backend is fixed when keras is imported.

The parent writes a JSON job; the child (`python -m MODULE JOB.json`) answers in `JOB.json.result`, with its result or
with the diagnostics of the error that ended it. Children may be started in another way, see `start_with`: as forks of a
process whose imports are done (`hf2khc.forking`).
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from hf2khc.diagnostics import ConversionError, Diagnostic, fail

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
_TAIL = 15
# Keras imports them to draw, and to stand in pipelines of scikit-learn: a hundred megabytes, and seconds of a process.
_UNUSED = ("matplotlib", "sklearn")


class Child(Protocol):
    """A started process: the part of `subprocess.Popen` that is used."""

    def wait(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""

    def kill(self) -> None:
        """End it."""


# Starts `python -m MODULE ARGUMENT` with variables on top of this process's, nothing on stdin, and a log file.
Starter = Callable[[str, str, Mapping[str, str], Path], Child]


def new_process(module: str, argument: str, environment: Mapping[str, str], log: Path) -> Child:
    with log.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module, argument], env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
            stdout=stream, stderr=stream,
        )  # fmt: skip


_starter: ContextVar[Starter] = ContextVar("starter", default=new_process)


def start_module(module: str, argument: str, environment: Mapping[str, str], log: Path) -> Child:
    """Start a module as a program with one argument.

    Args:
        module: importable name.
        argument: what it finds in `sys.argv[1]`.
        environment: variables set on top of this process's.
        log: file that takes what it writes.
    """
    return _starter.get()(module, argument, environment, log)


@contextmanager
def start_with(starter: Starter) -> Iterator[None]:
    """Start children with `starter` inside the block, in this thread."""
    token = _starter.set(starter)
    try:
        yield
    finally:
        _starter.reset(token)


def starts_anew() -> bool:
    """Whether children are new processes, as nothing else was said."""
    return _starter.get() is new_process


def run_job(module: str, job: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run `module` in a process of its own on a job and return its result.

    Args:
        module: importable name of a module that calls `serve`.
        job: JSON-able.
        environment: variables set on top of this process's.

    Raises:
        ConversionError: what the child raised; `child-process` when it ended without an answer.
    """
    with tempfile.TemporaryDirectory(prefix="hf2khc-") as directory:
        path, log = Path(directory, "job.json"), Path(directory, "log")
        path.write_text(json.dumps(job), encoding="utf-8")
        child = start_module(module, str(path), {**QUIET, **(environment or {})}, log)
        try:
            code = child.wait()
        finally:
            child.kill()
        answer = Path(f"{path}.result")
        if not answer.exists():
            tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:])
            raise fail("child-process", f"the process {module} {_ending(code)}", excerpt=tail)
        result: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    if "diagnostics" in result:
        raise ConversionError(*(Diagnostic(**d) for d in result["diagnostics"]))
    return result


def _ending(code: int) -> str:
    if code < 0:
        return f"was killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")
    return f"ended with exit code {code}"


def serve(work: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The child's side: run `work` on the job named on the command line and write its answer."""
    path = Path(sys.argv[1])
    try:
        result = work(json.loads(path.read_text(encoding="utf-8")))
    except ConversionError as error:
        result = {"diagnostics": [asdict(d) for d in error.diagnostics]}
    Path(f"{path}.result").write_text(json.dumps(result), encoding="utf-8")


def hide_other_backends() -> None:
    """Keep keras and keras_hub from importing backends that do not run; call before they are imported.

    Keras itself imports jax where it is installed, for a callback; keras_hub imports tensorflow, for tokenizers and
    data sets. That costs 100 and 600 MB, and seconds, in every process.
    """
    backend = os.environ.get("KERAS_BACKEND")
    hidden = {"jax": ("tensorflow", "tensorflow_text"), "torch": ("tensorflow", "tensorflow_text", "jax")}
    for name in hidden.get(str(backend), ()):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def import_keras() -> None:
    """Import keras and keras_hub as a child needs them: with one backend, and nothing to draw with."""
    hide_other_backends()
    with _without(_UNUSED):
        importlib.import_module("keras_hub")


@contextmanager
def _without(modules: Sequence[str]) -> Iterator[None]:
    """Inside the block the modules cannot be imported, if they have not been."""
    hidden = [module for module in modules if module not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for module in hidden:
            del sys.modules[module]


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes.

    `VmHWM` belongs to the running program; `ru_maxrss` would include the parent this process was forked from.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise fail("platform", "the kernel does not report VmHWM")
