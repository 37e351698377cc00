"""The command that a benchmark runs: the compiler's own, as a user types it."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.models import Benchmark

RANDOM = "--random-init"


def arguments(model: str, overrides: Mapping[str, Any], *options: str) -> list[str]:
    """What follows `hf2khc` for a model type at random weights."""
    return [model, RANDOM, *(f"--set={name}={_text(value)}" for name, value in overrides.items()), *options]


def of_benchmark(benchmark: Benchmark, scratch: Path, *options: str) -> list[str]:
    """What follows `hf2khc` for a benchmark; its directory is made below `scratch` where it has real weights."""
    if benchmark.prepare is not None:
        return [str(benchmark.prepare(scratch)), *options]
    task = [f"--task={benchmark.task}"] if benchmark.task else []
    return arguments(benchmark.model, benchmark.overrides, *task, *options)


def chosen(only: str, known: Sequence[str], verb: str) -> list[str]:
    """The names that `only` gives, separated by commas, or all.

    Raises:
        SystemExit: a name that is none.
    """
    names = [name.strip() for name in only.split(",") if name.strip()]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise SystemExit(f"nothing to {verb} is called {', '.join(unknown)}; there are {', '.join(known)}")
    return names or list(known)


def executable() -> list[str]:
    """How this interpreter runs the command line."""
    return [sys.executable, "-P", "-m", "hf2khc.cli.main"]


def quoted(words: Sequence[str], scratch: Path) -> str:
    """The command for a person to repeat; folders of this run are named by their last part."""
    short = [word.replace(f"{scratch}/", "") for word in words]
    return " ".join(["hf2khc", *(f"'{word}'" if set(word) & set('{}" ') else word for word in short)])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
