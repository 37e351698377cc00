"""Which elements of a checkpoint's tensors go into variables."""

import ast
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from hf2khc.weights.rows import NotConsumed, Row
from hf2khc.weights.transform import call_name, parse, trace_indices
from hf2khc.weights.transform_ops import BINARY, INDEX_TRACE

_PICKS = frozenset(("slice", "split", "take", "repeat", "broadcast_to"))
_SOURCE = re.compile(r"x\d*")


Use = tuple[Row, int]


def element_problems(rows: Sequence[Row], not_consumed: Iterable[NotConsumed] = ()) -> list[str]:
    """Tensors of which some element lands in no variable, or in more than one.

    Rows that compute (a reduction, arithmetic between tensors) are taken to use all of their tensors.

    Args:
        rows: bound to a checkpoint.
        not_consumed: parts of their tensors that are listed with a reason.
    """
    uses, shapes = _uses(rows)
    for item in not_consumed:
        if item.hf in shapes:
            part = Row(item.reason, (), item.part, (), "", (item.hf,), (shapes[item.hf],))
            uses[item.hf].append((part, 0))
    return [problem for name in uses for problem in _tensor_problems(name, shapes[name], uses[name])]


def unread_parts(rows: Sequence[Row]) -> list[Row]:
    """What goes into no variable of tensors that are read in part: rows whose transform picks it and names no variable.

    Such a part is some entries of the first axis, one behind another, and every other element goes into one variable.
    What is left out in another way is no part that a model does without but a fault, of which `element_problems` tells.

    Args:
        rows: bound to the model's own tensors.
    """
    uses, shapes = _uses(rows)
    found = ((name, _unread(shapes[name], uses[name])) for name in uses)
    return [_part(name, shapes[name], *part) for name, part in found if part]


def parts_listed(part: Row) -> Iterator[tuple[str, str]]:
    """The tensors of a checkpoint that a part of the model's is read from, and how the share of each is picked.

    Args:
        part: of `unread_parts`, bound to the checkpoint.
    """
    if len(part.hf) == 1:
        yield part.hf[0], part.transform
        return
    for position, (name, shape) in enumerate(zip(part.hf, part.hf_shapes, strict=True)):
        rows = _whole_rows(_counts(shape, [(part, position)]).reshape(shape[0], -1) > 0)
        if rows:
            yield name, _part(name, shape, *rows).transform


def _part(name: str, shape: tuple[int, ...], start: int, stop: int) -> Row:
    starts, sizes = (start, *[0] * (len(shape) - 1)), (stop - start, *shape[1:])
    return Row("", (name,), f"slice(x, {starts}, {sizes})", sizes, "float32")


def _uses(rows: Sequence[Row]) -> tuple[dict[str, list[Use]], dict[str, tuple[int, ...]]]:
    """For every tensor the rows that read it, as which of their sources, and its shape."""
    uses: dict[str, list[Use]] = defaultdict(list)
    shapes: dict[str, tuple[int, ...]] = {}
    for row in rows:
        for i, name in enumerate(row.hf):
            uses[name].append((row, i))
            shapes[name] = row.hf_shapes[i]
    return uses, shapes


def _unread(shape: tuple[int, ...], uses: Sequence[Use]) -> tuple[int, int] | None:
    """From where to where along the first axis a tensor is not read."""
    taken = sum(math.prod(row.keras_shape) for row, _ in uses)
    if taken >= math.prod(shape) or any(computes(row) for row, _ in uses):
        return None
    counts = _counts(shape, uses).reshape(shape[0], -1)
    return _whole_rows(counts == 0) if (counts <= 1).all() else None


def _whole_rows(chosen: np.ndarray) -> tuple[int, int] | None:
    """From where to where rows of a matrix are chosen; `None` where it is not whole ones, one behind another."""
    (rows,) = np.nonzero(chosen.any(axis=1))
    if not len(rows):
        return None
    start, stop = int(rows[0]), int(rows[-1]) + 1
    return (start, stop) if chosen[start:stop].all() else None


def _tensor_problems(name: str, shape: tuple[int, ...], uses: Sequence[Use]) -> list[str]:
    where = ", ".join(row.keras for row, _ in uses)
    if any(computes(row) for row, _ in uses):
        return [] if len(uses) == 1 else [f"{name}: used by several rows, one of which computes: {where}"]
    if _all_used(uses):
        return []
    counts = _counts(shape, uses)
    unused, repeated = int((counts == 0).sum()), int((counts > 1).sum())
    if not unused and not repeated:
        return []
    return [f"{name}: {unused} of {counts.size} elements unused, {repeated} used more than once: {where}"]


def _all_used(uses: Sequence[Use]) -> bool:
    return len(uses) == 1 and _keeps_all(uses[0][0])


def _counts(shape: tuple[int, ...], uses: Sequence[Use]) -> np.ndarray:
    """How often each element of a tensor is used."""
    counts = np.zeros(math.prod(shape), np.uint8)
    for row, position in uses:
        np.add.at(counts, _landed(row, position), 1)
    return counts


def computes(row: Row) -> bool:
    """Whether elements lose their identity: a reduction, or arithmetic between two arrays."""
    for node in ast.walk(parse(row.transform)):
        if isinstance(node, ast.Call) and call_name(node) not in INDEX_TRACE:
            return True
        if isinstance(node, ast.BinOp) and _has_source(node.left) and _has_source(node.right):
            return True
        if isinstance(node, ast.Call) and call_name(node) in BINARY and all(map(_has_source, node.args[:2])):
            return True
    return False


def _has_source(node: ast.expr) -> bool:
    return any(isinstance(n, ast.Name) and _SOURCE.fullmatch(n.id) for n in ast.walk(node))


def _keeps_all(row: Row) -> bool:
    """Whether a row's transform cannot drop or repeat an element: the common case, told without following elements."""
    tree: Any = parse(row.transform)
    calls = {call_name(node) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and _SOURCE.fullmatch(n.id)]
    picks = any(isinstance(node, ast.Subscript) for node in ast.walk(tree))
    return not picks and not calls & _PICKS and len(names) == len(set(names))


def _landed(row: Row, position: int) -> np.ndarray:
    """Numbers of the elements of one tensor that land in a row's variable (flat, repeated where they repeat)."""
    kind = np.int32 if math.prod(row.hf_shapes[position]) < 2**31 else np.int64
    arrays = [
        np.arange(math.prod(shape), dtype=kind).reshape(shape) if i == position else np.broadcast_to(kind(-1), shape)
        for i, shape in enumerate(row.hf_shapes)
    ]
    numbers = trace_indices(row.transform, arrays).reshape(-1)
    return numbers[numbers >= 0]
