"""What can follow from a mask of zeros and ones, so that a question with one answer is no branch.

Longformer asks whether any token has the mark of global attention, 2, in the mask of its input. Where that mask holds
zeros and ones the answer is no, whatever the numbers.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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


class MaskValues(TorchFunctionMode):
    """Within it a question about masks that has one answer is answered.

    Args:
        masks: tensors of zeros and ones.
    """

    def __init__(self, masks: Iterable[torch.Tensor]):
        super().__init__()
        # By identity, with the tensor, so that no other one takes it.
        with _really_computed():
            self.found = {id(mask): (mask, torch.tensor([0, 1], dtype=mask.dtype)) for mask in masks}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if name == "__setitem__" and self._marks_nothing(args[1]):
            return None
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if _writes(name) and any(id(tensor) in self.found for tensor in given):
            # What it was a view of, or what is a view of it, changes with it.
            self.found.clear()
        values = self._values(func, name, args, kwargs, given)
        if name in _READS and values is not None and len(values) == 1:
            with _really_computed():
                return values.item()
        result = func(*args, **kwargs)
        if func in _MADE and result.dim() == 0 and not _has_sizes(args, kwargs):
            with _really_computed():
                values = func(*args, **kwargs)[None]
        if values is not None and isinstance(result, torch.Tensor):
            self.found[id(result)] = result, values
        return result

    def _marks_nothing(self, key: Any) -> bool:
        """Whether a mask that picks what is written picks nothing."""
        values = self._of(key) if isinstance(key, torch.Tensor) and key.dtype is torch.bool else None
        with _really_computed():
            return values is not None and not values.any()

    def _of(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """What the entries of a tensor can be, where that is known."""
        return self.found[id(tensor)][1] if id(tensor) in self.found else None

    def _values(
        self, func: Callable, name: str, args: tuple, kwargs: dict[str, Any], given: list[torch.Tensor]
    ) -> torch.Tensor | None:
        """What the entries of a result can be, where that is known."""
        with _really_computed():
            if not any(id(tensor) in self.found for tensor in given):
                return None
            if name in _ELEMENTWISE:
                return self._computed(func, args, kwargs, given)
            values = self._of(args[0]) if isinstance(args[0], torch.Tensor) else None
            if values is None:
                return None
            if name == "pad" and kwargs.get("mode", "constant") == "constant" and len(args) == 2:
                return torch.cat([values, values.new_tensor([kwargs.get("value") or 0])]).unique()
            if name in _ASKS:
                return values.bool().unique()
            return values if name in _ARRANGES | _READS else None

    def _computed(
        self, func: Callable, args: tuple, kwargs: dict[str, Any], given: list[torch.Tensor]
    ) -> torch.Tensor | None:
        """What a function gives for all that its arguments can be; of a truth value nothing need be known."""
        both = torch.tensor([False, True])
        choices = {
            id(tensor): both if tensor.dtype is torch.bool and self._of(tensor) is None else self._of(tensor)
            for tensor in given
        }
        if any(values is None for values in choices.values()) or _has_sizes(args, kwargs):
            return None
        known = [(place, values) for place, values in choices.items() if values is not None]
        if math.prod(len(values) for _, values in known) > MOST_VALUES:
            return None
        # Each along an axis of its own: what is computed of all is computed of every choice.
        columns = {
            place: values.reshape(-1, *(1 for _ in known[axis + 1 :])) for axis, (place, values) in enumerate(known)
        }
        args, kwargs = tree_map_only(torch.Tensor, lambda tensor: columns[id(tensor)], (args, kwargs))
        found = func(*args, **kwargs)
        return found.unique() if isinstance(found, torch.Tensor) else None


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
