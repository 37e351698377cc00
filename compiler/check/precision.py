"""Run a torch model in float64 although its code asks for float32.

A cast to float32 inside a model means "at least float32": norms, softmax and rotary tables use it to leave half
precision. In the reference it must not throw bits away. Two modes see to that: one at the level of torch's Python
functions, so that a constant given in Python keeps all its digits, and one at the level of aten, for what the first
cannot see.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from hf2khc.diagnostics import fail

_NARROW = {torch.float32: torch.float64, torch.complex64: torch.complex128}
_SINGLE = {torch.Tensor.float: torch.Tensor.double, torch.Tensor.cfloat: torch.Tensor.cdouble}
_REINTERPRETS = frozenset(("aten::view.dtype", "aten::frombuffer"))


def _wider(value: Any) -> Any:
    """float64 for float32; other values as they are."""
    if isinstance(value, torch.dtype):
        return _NARROW.get(value, value)
    return value


def _widened(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(_NARROW[value.dtype]) if value.dtype in _NARROW else value
    return _wider(value)


class _PythonCalls(TorchFunctionMode):
    """Replaces the dtype float32 in calls of torch functions, and `.float()` by `.double()`."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        func = _SINGLE.get(func, func)
        return func(*tree_map(_wider, tuple(args)), **tree_map(_wider, kwargs or {}))


class _AtenCalls(TorchDispatchMode):
    """Replaces the dtype float32 in aten calls, and float32 tensors that still arrive by their float64 values."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.name() in _REINTERPRETS:
            return func(*args, **kwargs)
        if _writes_narrow(func, args, kwargs):
            raise fail("float64-reference", f"{func.name()} writes into a float32 tensor in the float64 reference")
        return func(*tree_map(_widened, tuple(args)), **tree_map(_widened, kwargs))


def _writes_narrow(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether a call writes into a float32 tensor: a widened copy would take the write and lose it."""
    if not func._schema.is_mutable:
        return False
    for i, argument in enumerate(func._schema.arguments):
        value = kwargs.get(argument.name, args[i] if i < len(args) else None)
        written = argument.alias_info is not None and argument.alias_info.is_write
        if written and isinstance(value, torch.Tensor) and value.dtype in _NARROW:
            return True
    return False


@contextmanager
def at_least_float64() -> Iterator[None]:
    """While active, everything that asks for float32 gets float64, and new tensors are float64."""
    default = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.callback(torch.set_default_dtype, default)
        torch.set_default_dtype(torch.float64)
        stack.enter_context(_AtenCalls())
        stack.enter_context(_PythonCalls())
        yield
