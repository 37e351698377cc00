"""Node: one operation, with its type and where it comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from hf2khc.ir.types import Tensor, Type

LEAVES = ("input", "param", "const")


@dataclass(frozen=True)
class Loc:
    """A place in the model's own source.

    Args:
        file: path of the modeling file.
        line: 1-based.
        cls: class of the module that ran it.
        path: path of the module instance, such as `layers.0.mlp`.
    """

    file: str
    line: int
    cls: str = ""
    path: str = ""

    def __str__(self) -> str:
        return f"{self.file.rsplit('/', 1)[-1]}:{self.line}"


@dataclass(frozen=True)
class Node:
    """One operation. `operands` name nodes of the same graph; `None` stands for an absent optional one."""

    name: str
    op: str
    operands: tuple[str | None, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)
    type: Type = ()
    loc: Loc | None = None
    origin: frozenset[str] = frozenset()

    def __post_init__(self):
        object.__setattr__(self, "attrs", MappingProxyType(dict(self.attrs)))
        object.__setattr__(self, "operands", tuple(self.operands))

    def __hash__(self):
        return hash((self.name, self.op, self.operands))

    def __reduce__(self):
        fields = (self.name, self.op, self.operands, dict(self.attrs), self.type, self.loc, self.origin)
        return Node, fields

    @property
    def level(self) -> str:
        """The prefix of the op: `aten`, `ops`, `hub`, `layers`; empty for structural ops."""
        return self.op.rpartition(".")[0].partition(".")[0]

    @property
    def tensor(self) -> Tensor:
        """The type of a node with one result."""
        assert isinstance(self.type, Tensor), f"%{self.name} has {len(self.type)} results"
        return self.type

    @property
    def used(self) -> tuple[str, ...]:
        """The operands that are there."""
        return tuple(o for o in self.operands if o is not None)

    def with_attrs(self, **changes: object) -> "Node":
        return replace(self, attrs={**self.attrs, **changes})
