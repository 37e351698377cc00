"""What can follow from a mask of zeros and ones, so that a question with one answer is no branch.

Longformer asks whether any token has the mark of global attention, 2, in the mask of its input. Where that mask holds
zeros and ones the answer is no, whatever the numbers.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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
class _Entries:
    """What the entries of a tensor can be.

    Args:
        values: all of them; of tensors of one `place` the values at one index belong to one entry.
        place: where entries stand, the same for what is computed of each by itself.
    """

    values: torch.Tensor
    place: object = field(default_factory=object)


class MaskValues(TorchFunctionMode):
    """Within it a question about masks that has one answer is answered.

    Args:
        masks: tensors of zeros and ones.
    """

    def __init__(self, masks: Iterable[torch.Tensor]):
        super().__init__()
        # By identity, with the tensor, so that no other one takes it.
        self.found: dict[int, tuple[torch.Tensor, _Entries]] = {}
        for mask in masks:
            with really_computed():
                self._found(mask, _Entries(torch.tensor([0, 1], dtype=mask.dtype)))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        given = {id(leaf): leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        if not given.keys() & self.found.keys():
            result = func(*args, **kwargs)
            is_number = func in _MADE and result.dim() == 0 and not _has_sizes(args, kwargs)
            return self._found(result, _number(func, args, kwargs) if is_number else None)
        if name == "__setitem__" and self._marks_nothing(args[1]):
            return None
        if writes(name) or _is_operator_in_place(name):
            # What it was a view of, or what is a view of it, changes with it.
            self.found.clear()
            return func(*args, **kwargs)
        with really_computed():
            entries = self._entries(func, name, args, kwargs, given)
            if name in _READS and entries is not None and len(entries.values.unique()) == 1:
                return entries.values[0].item()
        return self._found(func(*args, **kwargs), entries)

    def _found(self, result: Any, entries: _Entries | None) -> Any:
        """The result, of which the entries are known from now on."""
        if entries is not None and isinstance(result, torch.Tensor):
            self.found[id(result)] = result, entries
        return result

    def _of(self, tensor: Any) -> _Entries | None:
        return self.found[id(tensor)][1] if id(tensor) in self.found else None

    def _marks_nothing(self, key: Any) -> bool:
        """Whether a mask that picks what is written picks nothing."""
        entries = self._of(key) if isinstance(key, torch.Tensor) and key.dtype is torch.bool else None
        with really_computed():
            return entries is not None and not entries.values.any()

    def _entries(
        self, func: Callable, name: str, args: tuple, kwargs: dict[str, Any], given: Mapping[int, torch.Tensor]
    ) -> _Entries | None:
        """What the entries of a result can be, where that is known."""
        if name in _ELEMENTWISE:
            return self._computed(func, args, kwargs, given)
        known = self._of(args[0]) if args else None
        if known is None:
            return None
        values = known.values.unique()
        if name == "pad" and kwargs.get("mode", "constant") == "constant" and len(args) == 2:
            return _Entries(torch.cat([values, values.new_tensor([kwargs.get("value") or 0])]).unique())
        if name in _ASKS:
            return _Entries(values.bool().unique())
        return _Entries(values) if name in _ARRANGES | _READS else None

    def _computed(
        self, func: Callable, args: tuple, kwargs: dict[str, Any], given: Mapping[int, torch.Tensor]
    ) -> _Entries | None:
        """What a function gives for all that its arguments can be; of a truth value nothing need be known."""
        both = torch.tensor([False, True])
        known = {
            name: self._of(tensor) or _Entries(both)
            for name, tensor in given.items()
            if name in self.found or tensor.dtype is torch.bool
        }
        if len(known) < len(given) or _has_sizes(args, kwargs):
            return None
        places = {one.place for one in known.values()}
        together = len(places) == 1
        columns = {name: one.values if together else one.values.unique() for name, one in known.items()}
        if math.prod(map(torch.numel, columns.values())) > MOST_VALUES:
            return None
        if not together:
            columns = _all_choices(columns)
        args, kwargs = tree_map_only(torch.Tensor, lambda tensor: columns[id(tensor)], (args, kwargs))
        result = func(*args, **kwargs)
        if not isinstance(result, torch.Tensor):
            return None
        return _Entries(result, places.pop()) if together else _Entries(result.unique())


def _number(func: Callable, args: tuple, kwargs: dict[str, Any]) -> _Entries:
    """The one entry of a tensor without axes."""
    with really_computed():
        return _Entries(func(*args, **kwargs)[None])


def _all_choices(values: Mapping[int, torch.Tensor]) -> dict[int, torch.Tensor]:
    """Each along an axis of its own: what is computed of all is computed of every choice."""
    count = len(values)
    return {
        name: one.reshape(-1, *(1 for _ in range(axis + 1, count))) for axis, (name, one) in enumerate(values.items())
    }


@contextmanager
def really_computed() -> Iterator[None]:
    """Within the block functions of torch compute numbers, and are no part of a trace."""
    with torch.utils._python_dispatch._disable_current_modes(), torch._C.DisableTorchFunction():
        yield


def _has_sizes(args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether a number is a size that is free: what is computed of it would hold it fast."""
    return any(isinstance(leaf, torch.SymInt | torch.SymFloat) for leaf in tree_leaves((args, kwargs)))


def writes(name: str) -> bool:
    """Whether a function of torch of this name writes into its first argument; operators of Python apart."""
    return name == "__setitem__" or (name.endswith("_") and not name.startswith("__"))


def _is_operator_in_place(name: str) -> bool:
    return name.startswith("__i") and name not in ("__invert__", "__index__")
