"""Children of the tests: forks of processes whose imports are done, since importing is most of what a child does.

The twin is compiled in a fork of the tests' own process. Packages are built and run in forks of one server for each
Keras backend, which has imported no package; a server starts when it is first asked for.
"""

import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from hf2khc.process import Child, new_process

# A test may be started anywhere.
sys.path.append(str(Path(__file__).parents[1]))

from benchmarks.zoo.forks import Fork, Remote, run_module
from benchmarks.zoo.servers import servers

# Where a test searches modules of its own, or hides some, a child is a new process.
SEARCHED = "PYTHONPATH"
TWIN = "hf2khc.driver.twin_process"


class ForkedChildren:
    """Starts `python -m MODULE ARGUMENT` in a fork; a context manager that ends the servers."""

    def __init__(self) -> None:
        self._ends, self._servers = ExitStack(), dict[str, Path | None]()
        self._searched = os.environ.get(SEARCHED)

    def __call__(self, module: str, argument: str, environment: Mapping[str, str], log: Path) -> Child:
        searched = os.environ.get(SEARCHED) != self._searched or SEARCHED in environment
        if module == TWIN and not searched:
            return Fork(lambda: run_module(module, argument), environment, log)
        backend = environment.get("KERAS_BACKEND")
        server = None if backend is None or searched else self._server(backend)
        if server is None:
            return new_process(module, argument, environment, log)
        return Remote(server, module, argument, environment, log)

    def _server(self, backend: str) -> Path | None:
        if backend not in self._servers:
            self._servers |= {backend: None, **self._ends.enter_context(servers([backend]))}
        return self._servers[backend]

    def __enter__(self) -> "ForkedChildren":
        return self

    def __exit__(self, *exception: object) -> None:
        self._ends.close()
