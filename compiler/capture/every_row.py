"""Rows that a model picks by a mask, traced without a size that depends on data: all of them, each with its mark.

A mixture of experts hands each expert the tokens that were sent to it, an adapter those of its language. How many there
are no trace knows. What is computed of a row depends on that row alone, so all of them are, and where the results are
put back only those of marked rows are. The proof shows whether a model means that.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

from hf2khc.capture.known_values import KnownValues
from hf2khc.diagnostics import fail

_PUT = (torch.Tensor.index_add_, torch.Tensor.index_add, torch.index_add)
_SPLIT, _JOIN = (torch.Tensor.split, torch.split), (torch.cat, torch.concat)


class _Counts(list):
    """What `tolist` of counts stands for: objects that are no numbers, as nobody knows them."""

    def __init__(self, counts: torch.Tensor):
        super().__init__(object() for _ in range(counts.shape[0]))
        self.counts = counts


class EveryRow(KnownValues):
    """Within it a boolean mask picks every row, and decides what of them is put back.

    `x[mask]` and `torch.where(mask)` give all rows and all places, `x[mask] = rows` and `index_add` of rows at such
    places leave out those that are not marked. The places of a vector's nonzero entries, such as the experts that any
    token is sent to, are all its places: a loop over them visits those in vain that it could have left out.

    `x.split(counts.tolist())` gives all rows for each part, and `cat` of as many results takes from each those of its
    part (JetMoE).

    Raises:
        ConversionError: at its end, where rows of a mask are picked and nothing is put back.
    """

    def __init__(self) -> None:
        super().__init__(makers=())
        # The places that a mask gave, by identity, with the mask and its marks in one row; all are held, so that no
        # other tensor takes their identity.
        self.marks: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        # The counts by which rows were split last, with the number of rows.
        self.split: tuple[torch.Tensor, Any] | None = None
        # The masks whose rows are not put back yet, and the counts by which rows are split.
        self.open: dict[int, torch.Tensor] = {}
        self._patches = ExitStack()

    def __enter__(self):
        # A mode does not see these: they are methods of tensors without numbers.
        for traced in (FakeTensor, FunctionalTensor):
            self._patches.enter_context(mock.patch.object(traced, "tolist", _counted(traced.tolist)))
        return super().__enter__()

    def __exit__(self, kind, *others) -> None:
        super().__exit__(kind, *others)
        self._patches.close()
        if self.open and kind is None:
            raise fail("not-capturable", "the model picks rows by a mask and does not put them back")

    def __torch_function__(self, func: Callable, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.where, torch.Tensor.where) and len(args) == 1 and not kwargs:
            return self._places(args[0])
        if func in (torch.nonzero, torch.Tensor.nonzero) and args[0].dim() == 1 and isinstance(args[0].shape[0], int):
            places = self.compute(torch.arange, args[0].shape[0])
            return (places,) if kwargs.get("as_tuple") else self.compute(torch.unsqueeze, places, 1)
        if func is torch.Tensor.__getitem__ and _is_mask(args[1]):
            return self._picked(*args)
        if func is torch.Tensor.__setitem__ and _is_mask(args[1]) and _fits(args[2], *args[:2]):
            x, mask, rows = args
            self.open.pop(id(mask), None)
            x.copy_(torch.where(_beside(mask, x), rows.reshape(x.shape), x))
            return None
        if func in _PUT and len(args) == 4 and id(args[2]) in self.marks:
            x, axis, places, rows = args
            if axis == 0:
                mask, marked = self.marks[id(places)][1:]
                self.open.pop(id(mask), None)
                rows = torch.where(_beside(marked, rows), rows, 0)
            return func(x, axis, places, rows, **kwargs)
        if func in _SPLIT and isinstance(args[1], _Counts) and not any((*args[2:], *kwargs.values())):
            return self._split(args[0], args[1].counts)
        if func in _JOIN and self.split and not any((*args[1:], *kwargs.values())) and _parts(args[0], *self.split):
            return self._joined(args[0], self.split[0])
        if func is torch.Tensor.__getitem__:
            args = self._numbered(*args)
        return super().__torch_function__(func, types, args, kwargs)

    def refuse(self, func, args, given: Sequence[torch.Tensor]) -> None:
        """As for known values; all places stand for those of nonzero entries only where each is visited by itself.

        Raises:
            ConversionError: it takes several places at once, or writes into one.
        """
        super().refuse(func, args, given)
        known = list(map(self.knows, given))
        if not all(known) and any(place.dim() for place, is_known in zip(given, known, strict=True) if is_known):
            raise fail("not-capturable", "the model takes the places of nonzero entries together")

    def _numbered(self, x: torch.Tensor, key) -> tuple:
        """`x` and its key with a known place as a number, where that is first or all of it.

        A place behind the end is one that nothing is ever sent to, or the model itself would fail: any other will do.
        """
        first, *rest = key if isinstance(key, tuple) else (key,)
        if self.knows(x) or not isinstance(first, torch.Tensor) or first.dim() or not self.knows(first):
            return x, key
        return x, (min(self.compute(first.item), x.shape[0] - 1), *rest)

    def _places(self, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        sizes = [torch.arange(size) for size in mask.shape]
        places = tuple(grid.reshape(-1) for grid in torch.meshgrid(*sizes, indexing="ij"))
        marked = mask.reshape(-1).to(torch.bool)
        self.marks |= {id(place): (place, mask, marked) for place in places}
        self.open[id(mask)] = mask
        return places

    def _split(self, x: torch.Tensor, counts: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.split = counts, x.shape[0]
        self.open[id(counts)] = counts
        return (x,) * counts.shape[0]

    def _joined(self, parts: Sequence[torch.Tensor], counts: torch.Tensor) -> torch.Tensor:
        self.open.pop(id(counts), None)
        ends = torch.cumsum(counts, 0)
        rows = torch.arange(parts[0].shape[0])
        joined = parts[-1]
        for part, end in reversed(list(zip(parts[:-1], ends[:-1].unbind(), strict=True))):
            joined = torch.where(_beside(rows < end, part), part, joined)
        return joined

    def _picked(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        self.open[id(mask)] = mask
        return x.reshape(-1, *x.shape[mask.dim() :])


def _counted(tolist: Callable) -> Callable:
    """`tolist` of a vector whose numbers nobody knows."""

    def listed(tensor: torch.Tensor) -> list:
        is_vector = tensor.dim() == 1 and isinstance(tensor.shape[0], int)
        return _Counts(tensor) if is_vector else tolist(tensor)

    return listed


def _parts(parts, counts: torch.Tensor, rows) -> bool:
    """Whether each is computed of all rows, for as many parts as there are counts."""
    return len(parts) == counts.shape[0] and all(part.dim() and part.shape[0] == rows for part in parts)


def _is_mask(key) -> bool:
    return isinstance(key, torch.Tensor) and key.dtype is torch.bool


def _fits(rows, x: torch.Tensor, mask: torch.Tensor) -> bool:
    """Whether there is one row for every place, marked or not."""
    shape = (math.prod(mask.shape), *x.shape[mask.dim() :])
    return isinstance(rows, torch.Tensor) and tuple(rows.shape) == shape


def _beside(mask: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The mask with axes of one entry, as many as `x` has."""
    return mask.reshape(*mask.shape, *(1 for _ in range(x.dim() - mask.dim())))
