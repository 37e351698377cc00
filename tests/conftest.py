"""What all tests share: the environment, `--update` for golden files, and `-m slow`."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports torch or keras. The arrays of the tests are tiny: a second thread costs more than it saves.
os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A shell starts a job in the background with these ignored, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# For the modules beside the tests that are no tests themselves, and for the benchmarks: a test may be started anywhere.
sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1]))

from forked_children import ForkedChildren  # noqa: E402

from hf2khc.process import start_with  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def children() -> Iterator[None]:
    """Children that convert, build and prove are forks."""
    with ForkedChildren() as forks, start_with(forks):
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="rewrite the golden files with what the passes give now")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes minutes; runs with `-m slow` alone")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("-m"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]
