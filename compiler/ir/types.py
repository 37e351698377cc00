"""Types of values: dtype and symbolic shape."""

from collections.abc import Mapping
from dataclasses import dataclass

from hf2khc.ir.expr import Expr, evaluate, names_of, same

DTYPES = {
    "f32": "float32", "f64": "float64", "f16": "float16", "bf16": "bfloat16", "bool": "bool", "i64": "int64",
    "i32": "int32", "i16": "int16", "i8": "int8", "u8": "uint8", "c64": "complex64", "c128": "complex128",
}  # fmt: skip
SHORT = {long: short for short, long in DTYPES.items()}


class Differs(int):
    """A size that is another one at another config, by no law that was found."""


@dataclass(frozen=True)
class Tensor:
    """A tensor type.

    Args:
        dtype: a name as Keras spells it, such as `float32`.
        shape: ints, among them those that differ, and `Expr`s over symbols.
    """

    dtype: str
    shape: tuple[int | Expr, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_floating(self) -> bool:
        return "float" in self.dtype

    @property
    def symbols(self) -> frozenset[str]:
        return names_of(self.shape)

    def __str__(self) -> str:
        return f"{SHORT.get(self.dtype, self.dtype)}[{', '.join(map(str, self.shape))}]"


Type = Tensor | tuple[Tensor, ...]


def tensors(type_: Type) -> tuple[Tensor, ...]:
    """The tensors of a type, one or several."""
    return type_ if isinstance(type_, tuple) else (type_,)


def plain_symbols(type_: Type) -> frozenset[str]:
    """Symbols that stand alone as a dimension, so that the size can be read off a value of the type."""
    return frozenset(
        d.text for t in tensors(type_) for d in t.shape if isinstance(d, Expr) and d.names == frozenset({d.text})
    )


def same_type(a: Type, b: Type) -> bool:
    """Whether two types agree, dimensions compared by value."""
    first, second = tensors(a), tensors(b)
    return len(first) == len(second) and all(
        x.dtype == y.dtype and x.rank == y.rank and all(map(same, x.shape, y.shape))
        for x, y in zip(first, second, strict=True)
    )


def bind(types: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The values of the symbols that stand alone as a dimension of one of `types`, read off concrete shapes."""
    env: dict[str, int] = {}
    for name, type_ in types.items():
        for dim, size in zip(type_.shape, shapes[name], strict=True):
            if isinstance(dim, Expr) and dim.names == {dim.text}:
                env.setdefault(dim.text, int(size))
    return env


def concrete(type_: Tensor, env: Mapping[str, int]) -> tuple[int, ...]:
    """The shape with symbols bound."""
    return tuple(int(evaluate(dim, env)) for dim in type_.shape)
