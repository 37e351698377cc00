"""Python loops over a size that is free, traced as three rounds that stand for all.

A recurrence is written as `for t in range(length)`: each round reads entry t of some sequences, carries a state on, and
leaves a result. A trace would have as many rounds as its example is long, and hold at that length alone. Here it has
three, each marked; behind it they are put beside one another and become one scan (`roll_rounds`).
"""

import builtins
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import sympy
import torch
from torch import library
from torch.fx import traceback
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from hf2khc.capture.replaced_builtins import replaced_builtins

ROUNDS = 3
# The key under which the marks of a node of the trace lie: the number of its loop and that of the round.
MARK = "hf2khc_round"
# No longer sequence is traced to have three rounds.
_LONGEST = 2048

_OPS = library.Library("hf2khc", "FRAGMENT")
_OPS.define("rounds(Tensor[] results, SymInt count, int axis) -> Tensor")


def _all_rounds(results: list[torch.Tensor], count: Any, axis: int) -> torch.Tensor:
    first = results[0]
    axis %= first.dim() + 1
    return first.new_empty((*first.shape[:axis], count, *first.shape[axis:]))


_OPS.impl("rounds", _all_rounds, "CompositeExplicitAutograd")


class CountedLoop(Exception):
    """A model loops over a free size, and its rounds are not traced.

    They are not asked for, there are fewer than three, or what they compute depends on their number.

    Args:
        size: the size in the trace on which alone the number of rounds depends, 0 if there is no such size.
        enough: the smallest such size at which there are three rounds, 0 if there is none.
    """

    def __init__(self, size: int = 0, enough: int = 0):
        super().__init__()
        self.size, self.enough = size, enough


def _refused(self: int, *others: Any) -> Any:
    raise CountedLoop


class _Number(int):
    """The number of a round, with which entries are read and written, and nothing else: three do not show more."""

    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = __hash__ = __bool__ = _refused  # type: ignore[assignment]
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __mod__ = __floordiv__ = _refused  # type: ignore[assignment]
    __truediv__ = __pow__ = __neg__ = __and__ = __or__ = __xor__ = __lshift__ = __rshift__ = _refused  # type: ignore[assignment]


class CountedLoops(TorchFunctionMode):
    """Within it a loop over a free size has three rounds, and results that are stacked stand for those of all rounds.

    Args:
        rounds: whether rounds are asked for; otherwise the first such loop raises `CountedLoop`.
    """

    def __init__(self, rounds: bool):
        super().__init__()
        self.rounds = rounds
        self.counts: list[Any] = []
        self.round: tuple[int, int] | None = None
        # What each round computed, by identity; held, so that nothing else takes it.
        self.made: dict[int, tuple[torch.Tensor, tuple[int, int]]] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.stack:
            results = args[0] if args else kwargs["tensors"]
            loop = self._stacked(results)
            if loop is not None:
                axis = args[1] if len(args) > 1 else kwargs.get("dim", 0)
                return torch.ops.hf2khc.rounds(list(results), self.counts[loop], axis)
        result = func(*args, **kwargs)
        if self.round is not None and isinstance(result, torch.Tensor):
            self.made[id(result)] = result, self.round
        return result

    def _stacked(self, results: Any) -> int | None:
        """The loop of which these are the results of all rounds, in order."""
        marks = [self.made[id(result)][1] for result in results if id(result) in self.made]
        complete = len(marks) == len(results) == ROUNDS and marks == [(marks[0][0], k) for k in range(ROUNDS)]
        return marks[0][0] if complete else None

    def range(self, *bounds: Any) -> Any:
        """Python's `range`; up to a free size, of which there are at least three in the trace, the first three."""
        count = bounds[-1]
        counted = isinstance(count, torch.SymInt) and (len(bounds) == 1 or (len(bounds) == 2 and bounds[0] == 0))
        if not counted:
            return builtins.range(*bounds)
        if not self.rounds or self.round is not None or not _is_long(count):
            raise CountedLoop(*_enough(count))
        self.counts.append(count)
        return self._rounds(len(self.counts) - 1)

    def _rounds(self, loop: int) -> Iterator[int]:
        try:
            for number in builtins.range(ROUNDS):
                self.round = loop, number
                with traceback.annotate({MARK: self.round}):
                    yield _Number(number)
        finally:
            self.round = None


def _is_long(count: torch.SymInt) -> bool:
    return count.node.hint is not None and count.node.hint >= ROUNDS


def _enough(count: torch.SymInt) -> tuple[int, int]:
    """The one size in the trace that a number of rounds depends on, and the smallest one for three rounds."""
    expression = count.node.expr
    if len(expression.free_symbols) != 1:
        return 0, 0
    (symbol,) = expression.free_symbols
    counts = ((size, expression.xreplace({symbol: sympy.Integer(size)})) for size in range(2, _LONGEST))
    size = int(count.node.shape_env.backed_var_to_val[symbol])
    return size, next((size for size, rounds in counts if rounds.is_Integer and rounds >= ROUNDS), 0)


@contextmanager
def counted_loops(model: PreTrainedModel, rounds: bool) -> Iterator[None]:
    """Within the block loops over free sizes in the model's own code have three rounds.

    Args:
        model: whose code it is.
        rounds: whether rounds are asked for; otherwise the first such loop raises `CountedLoop`.
    """
    mode = CountedLoops(rounds)
    with ExitStack() as stack:
        if rounds:
            stack.enter_context(mode)
            # The marks of the rounds.
            stack.enter_context(traceback.preserve_node_meta())
        stack.enter_context(replaced_builtins(model, range=mode.range))
        yield
