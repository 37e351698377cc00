"""How a parameter comes from tensors of a file, as data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class FileOperation:
    """An expression over tensors of a checkpoint.

    Args:
        op: `tensor` (a tensor of the file), or the `keras.ops` name of one of `concatenate`, `stack`, `transpose`,
            `reshape`, `slice`.
        operands: operations whose values it takes.
        attrs: arguments by keras.ops' names; `name` for `tensor`.
    """

    op: str
    operands: tuple["FileOperation", ...] = ()
    attrs: tuple[tuple[str, Any], ...] = ()

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors it reads, each once, in order."""
        if self.op == "tensor":
            return (dict(self.attrs)["name"],)
        return tuple(dict.fromkeys(name for operand in self.operands for name in operand.tensors))

    @property
    def is_tensor(self) -> bool:
        """Whether it is a tensor of the file as it stands."""
        return self.op == "tensor"

    def apply(self, read: Any) -> np.ndarray:
        """The value, where `read(name)` gives the array of a tensor of the file."""
        attrs = dict(self.attrs)
        if self.op == "tensor":
            return read(attrs["name"])
        values = [operand.apply(read) for operand in self.operands]
        return _APPLY[self.op](values, attrs)

    def __str__(self) -> str:
        if self.op == "tensor":
            return dict(self.attrs)["name"]
        arguments = [*map(str, self.operands), *(f"{name}={value}" for name, value in self.attrs)]
        return f"{self.op}({', '.join(arguments)})"


_APPLY = {
    "concatenate": lambda values, attrs: np.concatenate(values, attrs["axis"]),
    "stack": lambda values, attrs: np.stack(values, attrs["axis"]),
    "transpose": lambda values, attrs: np.transpose(values[0], attrs["axes"]),
    "reshape": lambda values, attrs: np.reshape(values[0], attrs["newshape"]),
    "slice": lambda values, attrs: _slice(values[0], attrs["start_indices"], attrs["shape"]),
}


def _slice(value: np.ndarray, start: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    return value[tuple(slice(begin, begin + size) for begin, size in zip(start, shape, strict=True))]


def tensor(name: str) -> FileOperation:
    """A tensor of the file, by its name there."""
    return FileOperation("tensor", (), (("name", name),))
