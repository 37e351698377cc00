"""How a parameter comes from tensors of a file, as data."""

from dataclasses import dataclass
from typing import Any


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
    def is_tensor(self) -> bool:
        """Whether it is a tensor of the file as it stands."""
        return self.op == "tensor"

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors it reads, each once, in order."""
        if self.is_tensor:
            return (dict(self.attrs)["name"],)
        return tuple(dict.fromkeys(name for operand in self.operands for name in operand.tensors))

    @property
    def transform(self) -> str:
        """The expression in the weight map's language, over `x` if one tensor is read, else `x0`, `x1`, ..."""
        names = self.tensors
        return self._text({name: f"x{i}" if len(names) > 1 else "x" for i, name in enumerate(names)})

    def _text(self, variables: dict[str, str]) -> str:
        if self.is_tensor:
            return variables[self.tensors[0]]
        operands = ", ".join(operand._text(variables) for operand in self.operands)
        if self.op in ("concatenate", "stack"):
            operands = f"[{operands}]"
        return f"{self.op}({', '.join([operands, *(f'{name}={value!r}' for name, value in self.attrs)])})"


def tensor(name: str) -> FileOperation:
    """A tensor of the file, by its name there."""
    return FileOperation("tensor", (), (("name", name),))
