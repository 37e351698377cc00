"""The IR's convention for torch ops, in both directions: a call to operands and attributes, and back.

Tensor arguments are operands in the order of the schema, a tensor list spread in place (`None` for a missing index);
trailing absent ones are left out. A number in a tensor's place and every other argument that differs from the schema's
default is an attribute under the schema's name; `operands` lists the tensor arguments that are no attributes. Dtypes
are strings. Device, layout and the like are dropped. The overload's name is not stored: the arguments determine it.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hf2khc.diagnostics import fail
from hf2khc.ir.expr import Expr

# Where a computation runs and how its result lies in memory: no part of what it computes.
_DROPPED = ("Device", "Layout", "MemoryFormat", "Generator", "Stream")
_DROPPED_NAMES = ("pin_memory", "non_blocking")
_DATA = (int, float, str, Expr, torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Generator)
# How many operands each tensor list has, where a schema has several lists.
_LISTS = "lists"


def flatten_call(overload, args: Sequence, kwargs: Mapping[str, object]) -> tuple[tuple, dict[str, object]]:
    """Operands and attributes of a call.

    Args:
        overload: a `torch._ops.OpOverload`.
        args, kwargs: its arguments; tensors are opaque references (anything that is no number, string, `Expr`, ...).

    Returns:
        operands, a tuple of the references and `None`; attributes by schema name, values as in `Node.attrs`.

    Raises:
        ConversionError: an argument the IR has no value for, such as a complex number.
    """
    slots, attrs = [], {}
    for argument, value in _bound(overload, args, kwargs):
        if _is_tensor(argument) and (value is None or _is_reference(value)):
            slots.append((value,))
        elif _is_tensor_list(argument):
            slots.append(_list_slot(value))
        elif not _is_dropped(argument) and not _is_default(argument, value):
            attrs[argument.name] = _attribute(overload, argument, value)
    parameters = overload._schema.arguments
    lists = [i for i, argument in enumerate(a for a in parameters if _is_any_tensor(a)) if _is_tensor_list(argument)]
    operands = [value for slot in slots for value in slot]
    if not lists or lists == [len(slots) - 1]:
        operands = list(_without_trailing_none(operands))
    if len(lists) > 1:
        attrs[_LISTS] = tuple(len(slots[i]) for i in lists)
    return tuple(operands), attrs


def rebuild_call(op: str, operands: Sequence, attrs: Mapping[str, object]) -> tuple[Any, list, dict[str, object]]:
    """The torch call that a node stands for; the inverse of `flatten_call`.

    Args:
        op: such as `aten.add`.
        operands: values or references, `None` where absent.
        attrs: evaluated attributes, no `Expr` left.

    Returns:
        the overload, its positional and its keyword arguments.

    Raises:
        ConversionError: there is no such op, or no overload takes these arguments.
    """
    key = tuple((name, _kind(value)) for name, value in attrs.items())
    plan = _plan(op, tuple(operand is not None for operand in operands), key, attrs.get(_LISTS))
    given = iter(operands)
    args, kwargs = [], {}
    for argument, count in plan.slots:
        if argument.name in attrs:
            value = _torch_value(argument, attrs[argument.name])
        elif count is None:
            value = argument.default_value
        else:
            values = [next(given) for _ in range(count)]
            value = values if _is_tensor_list(argument) else values[0] if values else None
        if argument.kwarg_only:
            kwargs[argument.name] = value
        else:
            args.append(value)
    return plan.overload, args, kwargs


@dataclass(frozen=True)
class _Plan:
    """An overload and, per argument, how many operands it takes; `None` for an argument that is no operand."""

    overload: Any
    slots: tuple[tuple[Any, int | None], ...]


@functools.lru_cache(maxsize=10_000)
def _plan(op: str, present: tuple[bool, ...], kinds: tuple[tuple[str, str], ...], lists) -> _Plan:
    fitting = []
    for overload in _overloads(op):
        slots = _fit(overload._schema.arguments, present, dict(kinds), lists)
        if slots is not None:
            fitting.append((_cost(overload._schema.arguments, dict(kinds)), _Plan(overload, slots)))
    if not fitting:
        given = ", ".join([*("tensor" if p else "none" for p in present), *(f"{n}={k}" for n, k in kinds)])
        raise fail("unsupported-op", f"{op} has no overload that takes ({given})")
    return min(fitting, key=lambda pair: pair[0])[1]


def _overloads(op: str) -> list:
    namespace, _, name = op.partition(".")
    packet = getattr(getattr(torch.ops, namespace), name, None)
    if packet is None:
        raise fail("unsupported-op", f"torch has no operator {op}")
    return [overload for overload in (getattr(packet, n) for n in packet.overloads()) if not _writes(overload)]


def _writes(overload) -> bool:
    return overload._schema.is_mutable or any(argument.is_out for argument in overload._schema.arguments)


def _fit(arguments, present: tuple[bool, ...], kinds: dict[str, str], lists) -> tuple | None:
    """Operand counts per argument of a schema that takes a call, or `None`."""
    if kinds.keys() - {argument.name for argument in arguments} - {_LISTS}:
        return None
    counts = _counts(arguments, len(present), kinds, lists)
    if counts is None:
        return None
    slots, position = [], 0
    for argument in arguments:
        count = counts.get(argument.name)
        if argument.name in kinds:
            if not _accepts(argument, kinds[argument.name]):
                return None
        elif count is None:
            if not argument.has_default_value():
                return None
        elif not _is_filled(argument, present[position : position + count]):
            return None
        position += count or 0
        slots.append((argument, count))
    return tuple(slots)


def _is_filled(argument, present: tuple[bool, ...]) -> bool:
    return _is_optional(argument) or (all(present) and (bool(present) or _is_tensor_list(argument)))


def _counts(arguments, total: int, kinds: dict[str, str], lists) -> dict[str, int] | None:
    """How many operands each tensor argument takes; `None` if they do not add up."""
    taking = [argument for argument in arguments if _is_any_tensor(argument) and argument.name not in kinds]
    variadic = [argument for argument in taking if _is_tensor_list(argument)]
    if len(variadic) > 1 and (lists is None or len(lists) != len(variadic)):
        return None
    single = len(taking) - len(variadic)
    if not variadic:
        return {a.name: int(i < total) for i, a in enumerate(taking)} if total <= single else None
    sizes = iter(lists if len(variadic) > 1 else (max(total - single, 0),))
    counts = {a.name: next(sizes) if _is_tensor_list(a) else 1 for a in taking}
    return counts if sum(counts.values()) == total else None


def _cost(arguments, kinds: dict[str, str]) -> tuple[int, int]:
    """Prefers overloads that take a number as a number, then those with fewer arguments left to their defaults."""
    numbers_as_tensors = sum(_is_tensor(a) and a.name in kinds for a in arguments)
    return numbers_as_tensors, len(arguments)


def _bound(overload, args: Sequence, kwargs: Mapping[str, object]) -> Iterator[tuple]:
    """Every argument of the schema with its value, defaults filled in."""
    positional = iter(args)
    for argument in overload._schema.arguments:
        if argument.name in kwargs:
            yield argument, kwargs[argument.name]
        elif argument.kwarg_only:
            yield argument, argument.default_value
        else:
            yield argument, next(positional, argument.default_value)


def _list_slot(value) -> tuple:
    values = tuple(value)
    return _without_trailing_none(values)


def _without_trailing_none(values: Sequence) -> tuple:
    values = tuple(values)
    while values and values[-1] is None:
        values = values[:-1]
    return values


def _attribute(overload, argument, value):
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, list | tuple):
        return tuple(_attribute(overload, argument, v) for v in value)
    if value is None or isinstance(value, bool | int | float | str | Expr):
        return value
    raise fail("unsupported-op", f"{overload} has an argument the IR has no value for: {argument.name}={value!r}")


def _torch_value(argument, value):
    """An attribute as torch takes it: dtypes are torch's own."""
    if isinstance(value, str) and "ScalarType" in str(argument.real_type):
        return getattr(torch, value)
    return list(value) if isinstance(value, tuple) else value


def _is_default(argument, value) -> bool:
    if not argument.has_default_value():
        return False
    default = argument.default_value
    if isinstance(default, list | tuple) and isinstance(value, list | tuple):
        return list(default) == list(value)
    # True == 1, but an argument that may be either distinguishes them.
    return isinstance(default, bool) == isinstance(value, bool) and default == value


def _is_tensor(argument) -> bool:
    return str(argument.type) in ("Tensor", "Optional[Tensor]")


def _is_tensor_list(argument) -> bool:
    return str(argument.type) in ("List[Tensor]", "List[Optional[Tensor]]", "Optional[List[Tensor]]")


def _is_any_tensor(argument) -> bool:
    return _is_tensor(argument) or _is_tensor_list(argument)


def _is_optional(argument) -> bool:
    return "Optional[" in str(argument.type)


def _is_dropped(argument) -> bool:
    return argument.name in _DROPPED_NAMES or any(word in str(argument.real_type) for word in _DROPPED)


def _is_reference(value) -> bool:
    return value is not None and not isinstance(value, (*_DATA, complex, list, tuple))


def _kind(value) -> str:
    """The kind of an attribute's value, as far as it tells overloads apart."""
    if isinstance(value, tuple):
        return "list of " + (_kind(value[0]) if value else "int")
    return type(value).__name__


_ACCEPTS = {
    "bool": ("bool", "number"),
    "int": ("int", "number", "float", "Tensor"),
    "float": ("float", "number", "Tensor"),
    "Expr": ("int", "number", "float", "Tensor"),
    "str": ("str", "ScalarType"),
}


def _accepts(argument, kind: str) -> bool:
    """Whether an argument takes an attribute of this kind; a sized list takes one number for all its entries."""
    text = str(argument.real_type).replace("SymInt", "int")
    if kind == "NoneType":
        return text.startswith("Optional[")
    text = text.removeprefix("Optional[").removesuffix("]") if text.startswith("Optional[") else text
    element = text.removeprefix("List[").removesuffix("]") if text.startswith("List[") else None
    if kind.startswith("list of "):
        return element is not None and element in _ACCEPTS[kind.removeprefix("list of ")]
    if element is not None:
        return argument.N is not None and element in _ACCEPTS[kind]
    return text in _ACCEPTS[kind]
