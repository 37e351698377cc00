"""Sizes that a model computes with buffers of one whole number, such as the strides of audio codecs (EnCodec, Mimi).

To torch they are tensors, and what is padded by their values depends on data. They are set by the model's code alone:
for a trace they are numbers, and what is computed of them and of sizes is a size.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only
from transformers import PreTrainedModel

_WHOLE = (int, torch.SymInt)


@contextmanager
def numbers_for_buffers(model: PreTrainedModel) -> Iterator[None]:
    """Within the block buffers of one whole number that no checkpoint holds are numbers."""
    found = list(number_buffers(model))
    for module, name, buffer in found:
        del module._buffers[name]
        module.__dict__[name] = Number(int(buffer))
    try:
        with _Unwrapped():
            yield
    finally:
        for module, name, buffer in found:
            del module.__dict__[name]
            module._buffers[name] = buffer


def number_buffers(model: PreTrainedModel) -> Iterator[tuple[torch.nn.Module, str, torch.Tensor]]:
    """The buffers of one whole number that no checkpoint holds, each with its module and name."""
    for module in model.modules():
        for name in module._non_persistent_buffers_set & module._buffers.keys():
            buffer = module._buffers[name]
            if buffer is not None and buffer.dim() == 0 and buffer.dtype in (torch.int64, torch.int32):
                yield module, name, buffer


class Number:
    """A whole number or a quotient of two, in the place of a tensor without axes; exact, also of sizes.

    What else a tensor can do is an error here: then the model is traced in another way.

    Args:
        numerator: a number or a size.
        denominator: a positive number.
    """

    def __init__(self, numerator: Any, denominator: int = 1):
        self.numerator, self.denominator = numerator, denominator

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _with_values(func, args, kwargs or {})

    @property
    def value(self) -> Any:
        """As a number or a size."""
        return self.numerator if self.denominator == 1 else self.numerator / self.denominator

    def floor(self) -> "Number":
        """The next whole number below."""
        return Number(self.numerator // self.denominator)

    def ceil(self) -> "Number":
        """The next whole number above."""
        return Number(-(-self.numerator // self.denominator))

    def to(self, dtype: torch.dtype, **_: Any) -> "Number":
        """As another kind of number: whole ones lose what is behind the point."""
        if dtype.is_floating_point or self.denominator == 1:
            return self
        return self.floor() if self.numerator >= 0 else self.ceil()

    def long(self) -> "Number":
        """As a whole number."""
        return self.to(torch.int64)

    def item(self) -> Any:
        """The same as `value`."""
        return self.value

    def __add__(self, other: Any) -> "Number":
        other = _number(other)
        if other is None:
            return NotImplemented
        top = self.numerator * other.denominator + other.numerator * self.denominator
        return _reduced(top, self.denominator * other.denominator)

    def __mul__(self, other: Any) -> "Number":
        other = _number(other)
        if other is None:
            return NotImplemented
        return _reduced(self.numerator * other.numerator, self.denominator * other.denominator)

    def __truediv__(self, other: Any) -> "Number":
        other = _number(other)
        if other is None or not isinstance(other.numerator, int) or other.numerator <= 0:
            return NotImplemented
        return _reduced(self.numerator * other.denominator, self.denominator * other.numerator)

    def __floordiv__(self, other: Any) -> "Number":
        found = self.__truediv__(other)
        return found if found is NotImplemented else found.floor()

    def __mod__(self, other: Any) -> "Number":
        found = self.__floordiv__(other)
        return found if found is NotImplemented else self - found * other

    def __sub__(self, other: Any) -> "Number":
        other = _number(other)
        return NotImplemented if other is None else self + -other

    def __rsub__(self, other: Any) -> "Number":
        return -self + other

    def __neg__(self) -> "Number":
        return Number(-self.numerator, self.denominator)

    def __rtruediv__(self, other: Any) -> "Number":
        return Number(other) / self

    def __rfloordiv__(self, other: Any) -> "Number":
        return Number(other) // self

    __radd__, __rmul__ = __add__, __mul__

    def __bool__(self) -> bool:
        return bool(self.numerator != 0)

    def __index__(self) -> int:
        return int(self.value)

    def __ceil__(self) -> Any:
        return self.ceil().value

    def __floor__(self) -> Any:
        return self.floor().value

    def __eq__(self, other: object) -> Any:
        return self.value == _value(other)

    def __lt__(self, other: Any) -> Any:
        return self.value < _value(other)

    def __le__(self, other: Any) -> Any:
        return self.value <= _value(other)

    def __gt__(self, other: Any) -> Any:
        return self.value > _value(other)

    def __ge__(self, other: Any) -> Any:
        return self.value >= _value(other)

    __hash__ = object.__hash__


def _number(value: Any) -> Number | None:
    return Number(value) if isinstance(value, _WHOLE) else value if isinstance(value, Number) else None


def _value(value: Any) -> Any:
    return value.value if isinstance(value, Number) else value


def _reduced(numerator: Any, denominator: int) -> Number:
    common = math.gcd(numerator, denominator) if isinstance(numerator, int) else 1
    return Number(numerator // common, denominator // common)


_ROUNDS = {torch.ceil: Number.ceil, torch.floor: Number.floor}


class _Unwrapped(TorchFunctionMode):
    """Functions of torch take the values of numbers."""

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _with_values(func, args, kwargs or {})


def _with_values(func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """What a function gives for the values of numbers; of one that is rounded a number."""
    if func in _ROUNDS and isinstance(args[0], Number):
        return _ROUNDS[func](args[0])
    args, kwargs = tree_map_only(Number, lambda number: number.value, (args, kwargs))
    return func(*args, **kwargs)
