"""The package on disk: it appears in one rename or not at all.

A package is built in a hidden folder beside its destination, hence on the same file system, and renamed when complete.
The folder is locked while its process lives: one that nobody holds was left by a killed run, and the next run for the
same destination removes it.
"""

import fcntl
import os
import shutil
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from hf2khc.diagnostics import fail

REPORT_FILE = "report.json"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def staged(directory: Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder to build the package in; it becomes `directory` when the body ends without an exception.

    Whatever else happens (an exception, Ctrl-C, SIGTERM, SIGHUP) leaves `directory` as it was and no folder behind; a
    signal is raised in the body as `KeyboardInterrupt`. With `overwrite` a package that stands in `directory` is
    replaced, and nothing else ever is.

    Raises:
        ConversionError: `output-exists`, `output-not-empty`, `output-not-a-package` or `output-not-writable`, before
            the body runs; `output-not-writable` when the rename fails.
    """
    directory = Path(os.path.abspath(directory))
    check_destination(directory, overwrite)
    made = _make_parents(directory)
    try:
        _remove_stale(directory)
        staging, lock = _reserve(directory)
    except BaseException:
        _remove_empty(made)
        raise
    try:
        with interruptible():
            yield staging
        with _uninterrupted():
            _publish(staging, directory, overwrite)
    except BaseException:
        with _uninterrupted():
            shutil.rmtree(staging, ignore_errors=True)
            _remove_empty(made)
        raise
    finally:
        os.close(lock)


def check_destination(directory: Path, overwrite: bool) -> None:
    if not os.path.lexists(directory):
        return
    if not directory.is_dir():
        raise fail("output-exists", f"{directory} exists and is not a folder", hint="name another folder with -o DIR")
    if directory.is_symlink():
        raise fail("output-exists", f"{directory} is a symbolic link", hint="name the folder itself with -o DIR")
    try:
        content = {entry.name for entry in directory.iterdir()}
    except OSError as error:
        raise _not_writable(directory, error) from error
    if content and not overwrite:
        hint = "name another folder with -o DIR, or replace the package in it with --overwrite"
        raise fail("output-not-empty", f"{directory} is not empty", hint=hint)
    if content and REPORT_FILE not in content:
        hint = f"--overwrite replaces only a folder that holds a package (no {REPORT_FILE} here); remove it yourself"
        raise fail("output-not-a-package", f"{directory} is not empty and is not a package", hint=hint)


def _make_parents(directory: Path) -> list[Path]:
    """Makes the missing parents of `directory`; returns those made, outermost first."""
    missing = [parent for parent in directory.parents if not parent.exists()][::-1]
    made: list[Path] = []
    try:
        for parent in missing:
            parent.mkdir()
            made.append(parent)
    except OSError as error:
        _remove_empty(made)
        raise _not_writable(directory, error) from error
    return made


def _remove_empty(folders: list[Path]) -> None:
    for folder in reversed(folders):
        with suppress(OSError):
            folder.rmdir()


def _reserve(directory: Path) -> tuple[Path, int]:
    """A new, locked staging folder and the descriptor that holds the lock."""
    while True:
        staging = directory.with_name(f"{_prefix(directory)}{uuid.uuid4().hex[:12]}")
        try:
            staging.mkdir()
        except OSError as error:
            raise _not_writable(directory, error) from error
        lock = _lock(staging)
        if lock is not None:
            return staging, lock
        # Another run took it for a stale one between our two calls: it is gone or about to be.


def _prefix(directory: Path) -> str:
    return f".{directory.name}.hf2khc-"


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the lock on `folder`, or None when another process has it or the folder is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == os.stat(folder).st_ino:
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _remove_stale(directory: Path) -> None:
    try:
        stale = [path for path in directory.parent.iterdir() if path.name.startswith(_prefix(directory))]
    except OSError as error:
        raise _not_writable(directory, error) from error
    for folder in stale:
        lock = _lock(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _publish(staging: Path, directory: Path, overwrite: bool) -> None:
    """Renames `staging` to `directory`. Checked again: the folder may have been filled while the package was built."""
    check_destination(directory, overwrite)
    old = None
    try:
        if directory.exists() and any(directory.iterdir()):
            old = directory.with_name(f"{_prefix(directory)}old-{uuid.uuid4().hex[:12]}")
            directory.rename(old)
        staging.rename(directory)
    except OSError as error:
        if old is not None and not directory.exists():
            old.rename(directory)
        raise _not_writable(directory, error) from error
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _not_writable(directory: Path, error: OSError) -> Exception:
    hint = "name a folder that you may write to with -o DIR"
    return fail("output-not-writable", f"cannot write to {directory}: {error.strerror or error}", hint=hint)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP are raised as `KeyboardInterrupt`, as Python does with SIGINT, so that the cleaning runs."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    with _handlers(interrupt, (signal.SIGTERM, signal.SIGHUP)):
        yield


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C does not stop the cleaning, which takes no time."""
    with _handlers(signal.SIG_IGN, _SIGNALS):
        yield


@contextmanager
def _handlers(handler: Any, numbers: tuple[signal.Signals, ...]) -> Iterator[None]:
    before: dict[signal.Signals, Any] = {}
    try:
        # Only the main thread may set handlers; an ignored signal (nohup) stays ignored.
        with suppress(ValueError):
            for number in numbers:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
