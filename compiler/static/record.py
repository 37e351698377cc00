"""Which tensors of a checkpoint go into which Keras variable, seen while somebody else's code moves them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import safetensors


@dataclass
class Placement:
    """What was moved.

    Args:
        read: tensors of the checkpoint that were read.
        placed: tensors by the path of the variable they were assigned to.
    """

    read: set[str] = field(default_factory=set)
    placed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _fresh: list[str] = field(default_factory=list)

    def reads(self, name: str) -> None:
        """A tensor is read."""
        self.read.add(name)
        self._fresh.append(name)

    def assigns(self, path: str) -> None:
        """A variable gets what was read since the last one got its value."""
        if self._fresh:
            self.placed[path] = tuple(dict.fromkeys(self._fresh))
            self._fresh.clear()


class _Watched:
    """An open safetensors file that tells which tensors are read."""

    def __init__(self, file: Any, placement: Placement):
        self._file, self._placement = file, placement

    def get_tensor(self, name: str) -> Any:
        self._placement.reads(name)
        return self._file.get_tensor(name)

    def __enter__(self) -> "_Watched":
        self._file.__enter__()
        return self

    def __exit__(self, *exception: Any) -> Any:
        return self._file.__exit__(*exception)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def recorded() -> Iterator[Placement]:
    """Inside the block what is read from safetensors files and assigned to Keras variables is noted.

    A tensor is taken to belong to the next variable that is assigned. Not thread-safe.
    """
    placement = Placement()
    opens, assign = safetensors.safe_open, keras.Variable.assign

    def watched_open(*arguments: Any, **options: Any) -> _Watched:
        return _Watched(opens(*arguments, **options), placement)

    def watched_assign(variable: Any, value: Any) -> Any:
        placement.assigns(variable.path)
        return assign(variable, value)

    own = "assign" in vars(keras.Variable)
    setattr(safetensors, "safe_open", watched_open)  # noqa: B010
    setattr(keras.Variable, "assign", watched_assign)  # noqa: B010
    try:
        yield placement
    finally:
        setattr(safetensors, "safe_open", opens)  # noqa: B010
        if own:
            setattr(keras.Variable, "assign", assign)  # noqa: B010
        else:
            del keras.Variable.assign
