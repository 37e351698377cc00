"""A forked process that behaves as `python -m MODULE ARGUMENT` would."""

import contextlib
import gc
import os
import runpy
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn


def ready_to_fork() -> None:
    """Leave what there is to the forks: a collection in one would otherwise touch, and so copy, every page of it."""
    gc.collect()
    gc.freeze()


class Fork:
    """A forked process; a `hf2khc.process.Child`.

    Args:
        work: what the process does; it ends with 1 where that raises.
        environment: variables set in it.
        log: file that takes what it writes; None leaves its output where it goes.
    """

    def __init__(self, work: Callable[[], object], environment: Mapping[str, str], log: Path | None = None):
        sys.stdout.flush(), sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            run_and_exit(work, environment, log)
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._reaped(os.WNOHANG)

    def wait(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        while (code := self._reaped(0)) is None:
            pass
        return code

    def kill(self) -> None:
        """End it."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _reaped(self, options: int) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, options)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code


def fork_module(module: str, argument: str, environment: Mapping[str, str], log: Path) -> Fork:
    """Start `python -m MODULE ARGUMENT` as a fork of this process; a `hf2khc.process.Starter`."""
    return Fork(lambda: run_module(module, argument), environment, log)


def run_and_exit(work: Callable[[], object], environment: Mapping[str, str], log: Path | None) -> NoReturn:
    """The child's side of a fork: never returns into the parent's program."""
    code = 1
    try:
        os.environ.update(environment)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if log is not None:
            stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(stream, 1)
            os.dup2(stream, 2)
            # Whatever the parent's text layers stood for, these stand for the descriptors.
            sys.stdout, sys.stderr = (open(fd, "w", buffering=1, closefd=False) for fd in (1, 2))  # noqa: SIM115
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        work()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def run_module(module: str, argument: str) -> None:
    """What `python -m MODULE ARGUMENT` does, in this process."""
    sys.argv = [module, argument]
    with warnings.catch_warnings():
        # It is imported already; what it holds in both forms are functions.
        warnings.simplefilter("ignore", RuntimeWarning)
        runpy.run_module(module, run_name="__main__")
