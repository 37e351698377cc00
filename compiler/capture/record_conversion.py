"""Runs a weight conversion of transformers on shapes and writes down what it did."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf2khc.capture.file_operations import FileOperation

Shape = tuple[int, ...]
aten = torch.ops.aten


class UnknownConversion(Exception):
    """The conversion calls something that is not a rearrangement of its inputs."""


class Recorder(TorchDispatchMode):
    """Follows tensors on the meta device through rearrangements.

    `name(tensor, operation)` introduces a tensor, `operation(tensor)` tells how one came about.
    """

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, tuple[torch.Tensor, FileOperation]] = {}

    def name(self, value: torch.Tensor, operation: FileOperation) -> None:
        """Introduces a tensor."""
        # The tensor is kept with it, so that no other takes over its id.
        self.known[id(value)] = (value, operation)

    def operation(self, value: torch.Tensor) -> FileOperation:
        """How a tensor came about."""
        if id(value) not in self.known:
            raise UnknownConversion("a tensor that does not come from the file")
        return self.known[id(value)][1]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if inputs:
            rule = _RULES.get(func.overloadpacket)
            if rule is None:
                raise UnknownConversion(str(func))
            results = list(result) if isinstance(result, list | tuple) else [result]
            made = rule(func, args, kwargs or {}, [self.operation(value) for value in inputs], inputs, results)
            for value, operation in zip(results, made, strict=True):
                self.name(value, operation)
        return result


def _argument(func: Any, args: Any, kwargs: Any, name: str) -> Any:
    for position, argument in enumerate(func._schema.arguments):
        if argument.name == name:
            return args[position] if position < len(args) else kwargs.get(name, argument.default_value)
    raise UnknownConversion(f"{func} without {name}")


def _same(func: Any, args: Any, kwargs: Any, ops: list[FileOperation], inputs: Any, results: Any):
    return ops[:1]


def _join(op: str) -> Callable[..., list[FileOperation]]:
    def rule(func: Any, args: Any, kwargs: Any, ops: list[FileOperation], inputs: Any, results: Any):
        axis = _argument(func, args, kwargs, "dim") % results[0].ndim
        return [FileOperation(op, tuple(ops), (("axis", axis),))]

    return rule


def _reshaped(func: Any, args: Any, kwargs: Any, ops: list[FileOperation], inputs: Any, results: Any):
    return [FileOperation("reshape", (ops[0],), (("newshape", tuple(results[0].shape)),))]


def _transposed(func: Any, args: Any, kwargs: Any, ops: list[FileOperation], inputs: Any, results: Any):
    rank = inputs[0].ndim
    axes = list(range(rank))
    if func.overloadpacket is aten.permute:
        axes = [axis % rank for axis in _argument(func, args, kwargs, "dims")]
    elif func.overloadpacket is aten.transpose:
        first, second = (_argument(func, args, kwargs, name) % rank for name in ("dim0", "dim1"))
        axes[first], axes[second] = second, first
    else:
        axes.reverse()
    return [FileOperation("transpose", (ops[0],), (("axes", tuple(axes)),))]


def _split(func: Any, args: Any, kwargs: Any, ops: list[FileOperation], inputs: Any, results: Any):
    axis = _argument(func, args, kwargs, "dim") % inputs[0].ndim
    start, made = 0, []
    for part in results:
        made.append(_part(ops[0], inputs[0], axis, start, part.shape[axis]))
        start += part.shape[axis]
    return made


def _sliced(func: Any, args: Any, kwargs: Any, ops: list[FileOperation], inputs: Any, results: Any):
    if _argument(func, args, kwargs, "step") != 1:
        raise UnknownConversion("a slice with a step")
    axis = _argument(func, args, kwargs, "dim") % inputs[0].ndim
    size = inputs[0].shape[axis]
    start = _argument(func, args, kwargs, "start") or 0
    start = max(start + size, 0) if start < 0 else min(start, size)
    return [_part(ops[0], inputs[0], axis, start, results[0].shape[axis])]


def _selected(func: Any, args: Any, kwargs: Any, ops: list[FileOperation], inputs: Any, results: Any):
    axis = _argument(func, args, kwargs, "dim") % inputs[0].ndim
    many = func.overloadpacket is aten.unbind
    indices = range(len(results)) if many else [_argument(func, args, kwargs, "index") % inputs[0].shape[axis]]
    parts = [_part(ops[0], inputs[0], axis, index, 1) for index in indices]
    return [FileOperation("reshape", (part,), (("newshape", tuple(results[0].shape)),)) for part in parts]


def _part(operation: FileOperation, value: torch.Tensor, axis: int, start: int, size: int) -> FileOperation:
    starts = tuple(start if index == axis else 0 for index in range(value.ndim))
    shape = tuple(size if index == axis else length for index, length in enumerate(value.shape))
    if shape == tuple(value.shape):
        return operation
    return FileOperation("slice", (operation,), (("start_indices", starts), ("shape", shape)))


_RULES: dict[Any, Callable[..., list[FileOperation]]] = {
    **dict.fromkeys((aten.clone, aten.detach, aten.alias, aten._to_copy, aten.lift_fresh), _same),
    **dict.fromkeys((aten.view, aten._unsafe_view, aten.unsqueeze, aten.squeeze, aten._reshape_alias), _reshaped),
    **dict.fromkeys((aten.transpose, aten.permute, aten.t), _transposed),
    **dict.fromkeys((aten.split, aten.split_with_sizes), _split),
    **dict.fromkeys((aten.select, aten.unbind), _selected),
    aten.slice: _sliced,
    aten.cat: _join("concatenate"),
    aten.stack: _join("stack"),
}
