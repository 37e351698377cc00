"""What can follow from a mask of zeros and ones, so that a question with one answer is no branch.

Longformer asks whether any token has the mark of global attention, 2, in the mask of its input. Where that mask holds
zeros and ones the answer is no, whatever the numbers.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

# What computes each entry of itself alone.
_ELEMENTWISE = frozenset({
    "add", "sub", "rsub", "mul", "div", "neg", "lt", "le", "gt", "ge", "eq", "ne", "logical_not", "bitwise_not", "to",
    "float", "double", "long", "int", "bool", "half", "clamp", "abs", "__add__", "__radd__", "__sub__", "__rsub__",
    "__mul__", "__rmul__", "__truediv__", "__neg__", "__invert__", "__lt__", "__le__", "__gt__", "__ge__", "__eq__",
    "__ne__", "__and__", "__or__", "logical_and", "logical_or", "masked_fill", "where",
})  # fmt: skip
# What has the entries of its argument, in another order or again.
_ARRANGES = frozenset({
    "view", "reshape", "expand", "unsqueeze", "squeeze", "flatten", "contiguous", "clone", "detach", "transpose",
    "permute", "__getitem__",
})  # fmt: skip
MOST_VALUES = 64
# Numbers as tensors, where they have no axes.
_MADE = (torch.tensor, torch.zeros, torch.ones)
_ASKS = frozenset({"any", "all"})
_READS = frozenset({"item", "__bool__"})


@dataclass(frozen=True)
class _Known:
    """What the entries of a tensor can be.

    Args:
        tensor: held, so that no other one takes its identity.
        values: all of them; of tensors of one `place` the values at one index belong to one entry.
        place: where entries stand, the same for what is computed of each by itself.
    """

    tensor: torch.Tensor
    values: torch.Tensor
    place: object


class MaskValues(TorchFunctionMode):
    """Within it a question about masks that has one answer is answered.

    Args:
        masks: tensors of zeros and ones.
    """

    def __init__(self, masks: Iterable[torch.Tensor]):
        super().__init__()
        with _really_computed():
            known = [_Known(mask, torch.tensor([0, 1], dtype=mask.dtype), object()) for mask in masks]
        self.found = {id(mask.tensor): mask for mask in known}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if name == "__setitem__" and self._marks_nothing(args[1]):
            return None
        given = {id(leaf): leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        if _writes(name) and given.keys() & self.found.keys():
            # What it was a view of, or what is a view of it, changes with it.
            self.found.clear()
        with _really_computed():
            values, place = self._values(func, name, args, kwargs, given)
            if name in _READS and values is not None and len(values.unique()) == 1:
                return values[0].item()
        result = func(*args, **kwargs)
        if func in _MADE and result.dim() == 0 and not _has_sizes(args, kwargs):
            with _really_computed():
                values = func(*args, **kwargs)[None]
        if values is not None and isinstance(result, torch.Tensor):
            self.found[id(result)] = _Known(result, values, place)
        return result

    def _marks_nothing(self, key: Any) -> bool:
        """Whether a mask that picks what is written picks nothing."""
        known = self.found.get(id(key)) if isinstance(key, torch.Tensor) and key.dtype is torch.bool else None
        with _really_computed():
            return known is not None and not known.values.any()

    def _values(
        self, func: Callable, name: str, args: tuple, kwargs: dict[str, Any], given: Mapping[int, torch.Tensor]
    ) -> tuple[torch.Tensor | None, object]:
        """What the entries of a result can be, where that is known, and where they stand."""
        elsewhere = object()
        if not given.keys() & self.found.keys():
            return None, elsewhere
        if name in _ELEMENTWISE:
            return self._computed(func, args, kwargs, given)
        known = self.found.get(id(args[0]))
        if known is None:
            return None, elsewhere
        values = known.values.unique()
        if name == "pad" and kwargs.get("mode", "constant") == "constant" and len(args) == 2:
            return torch.cat([values, values.new_tensor([kwargs.get("value") or 0])]).unique(), elsewhere
        if name in _ASKS:
            return values.bool().unique(), elsewhere
        return values if name in _ARRANGES | _READS else None, elsewhere

    def _computed(
        self, func: Callable, args: tuple, kwargs: dict[str, Any], given: Mapping[int, torch.Tensor]
    ) -> tuple[torch.Tensor | None, object]:
        """What a function gives for all that its arguments can be; of a truth value nothing need be known."""
        both = torch.tensor([False, True])
        known = {
            name: self.found[name] if name in self.found else _Known(tensor, both, object())
            for name, tensor in given.items()
            if name in self.found or tensor.dtype is torch.bool
        }
        if len(known) < len(given) or _has_sizes(args, kwargs):
            return None, object()
        places = {one.place for one in known.values()}
        if len(places) == 1:
            columns, (place,) = {name: one.values for name, one in known.items()}, places
        else:
            columns, place = _all_choices({name: one.values.unique() for name, one in known.items()}), object()
        if math.prod(map(torch.numel, columns.values())) > MOST_VALUES:
            return None, object()
        args, kwargs = tree_map_only(torch.Tensor, lambda tensor: columns[id(tensor)], (args, kwargs))
        result = func(*args, **kwargs)
        if not isinstance(result, torch.Tensor):
            return None, object()
        return (result if len(places) == 1 else result.unique()), place


def _all_choices(values: Mapping[int, torch.Tensor]) -> dict[int, torch.Tensor]:
    """Each along an axis of its own: what is computed of all is computed of every choice."""
    count = len(values)
    return {
        name: one.reshape(-1, *(1 for _ in range(axis + 1, count))) for axis, (name, one) in enumerate(values.items())
    }


@contextmanager
def _really_computed() -> Iterator[None]:
    with torch.utils._python_dispatch._disable_current_modes(), torch._C.DisableTorchFunction():
        yield


def _has_sizes(args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether a number is a size that is free: what is computed of it would hold it fast."""
    return any(isinstance(leaf, torch.SymInt | torch.SymFloat) for leaf in tree_leaves((args, kwargs)))


def _writes(name: str) -> bool:
    in_place = name.endswith("_") and not name.startswith("__")
    return in_place or name == "__setitem__" or (name.startswith("__i") and name not in ("__invert__", "__index__"))
