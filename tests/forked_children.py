"""Children of the tests: forks of processes whose imports are done, since importing is most of what a child does.

The twin is compiled in a fork of the tests' own process, which has traced models before. Everything else runs in forks
of one server for each Keras backend, which has imported no package; a server starts when it is first asked for.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from hf2khc.forking.fork import fork_module
from hf2khc.forking.servers import Servers
from hf2khc.process import Child, new_process

# Where a test searches modules of its own, or hides some, a child is a new process.
SEARCHED = "PYTHONPATH"
TWIN = "hf2khc.driver.twin_process"


class ForkedChildren:
    """Starts `python -m MODULE ARGUMENT` in a fork; a context manager that ends the servers."""

    def __init__(self) -> None:
        self._servers = Servers()
        self._searched = os.environ.get(SEARCHED)

    def __call__(self, module: str, argument: str, environment: Mapping[str, str], log: Path) -> Child:
        if os.environ.get(SEARCHED) != self._searched or SEARCHED in environment:
            return new_process(module, argument, environment, log)
        if module == TWIN:
            return fork_module(module, argument, environment, log)
        return self._servers(module, argument, environment, log)

    def __enter__(self) -> "ForkedChildren":
        return self

    def __exit__(self, *exception: object) -> None:
        self._servers.__exit__(*exception)
