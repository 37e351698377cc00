"""The servers that fork for the Keras backends this process does not run."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.zoo.forks import folder_of_sockets, wait_for

QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu",
    "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1",
}  # fmt: skip


@contextmanager
def servers(backends: Sequence[str]) -> Iterator[Mapping[str, Path]]:
    """Addresses by backend, inside the block; a backend whose server does not start has none."""
    folder = folder_of_sockets()
    started = {backend: _start(backend, folder) for backend in backends}
    try:
        addresses = {backend: folder / backend for backend in backends}
        yield {b: a for b, a in addresses.items() if wait_for(a, lambda b=b: started[b].poll() is None)}
    finally:
        for process in started.values():
            assert process.stdin is not None
            process.stdin.close()
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _start(backend: str, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "benchmarks.zoo.fork_server", str(folder / backend)]
    paths = [str(Path(__file__).parents[2]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, **QUIET, "KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
