"""The small expression language of the weight map, evaluated with numpy.

A transform is a Python expression over `x` (one source) or `x0`, `x1`, ... whose functions are named as in `keras.ops`.
It is parsed with `ast` and evaluated through the tables of `transform_ops`; nothing else of Python is reachable.
"""

import ast
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from hf2khc.diagnostics import ConversionError, fail
from hf2khc.weights.transform_ops import BINARY, ELEMENTWISE, INDEX_TRACE, REDUCE, SHAPES, VALUES, Table

_BINARY = {ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "divide"}
_ARITHMETIC = frozenset((*ELEMENTWISE, *BINARY, *REDUCE)) - {"cast"}


@lru_cache(maxsize=4096)
def parse(transform: str) -> ast.expr:
    """The syntax tree of a transform.

    Raises:
        ConversionError: `weight-transform`, when it is no expression.
    """
    try:
        return ast.parse(transform, mode="eval").body
    except SyntaxError as error:
        raise fail("weight-transform", f"not an expression: {error.msg}", excerpt=transform) from error


def evaluate(transform: str, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The value of a transform.

    Transforms that only move elements keep the dtype; arithmetic on floats runs in float64, so it is rounded once, when
    the result is stored.

    Args:
        transform: the expression.
        arrays: values of `x` or of `x0`, `x1`, ..., any dtype.

    Raises:
        ConversionError: `weight-transform`, for an unknown function or name, or arguments that do not fit.
    """
    if is_arithmetic(transform):
        arrays = [a.astype(np.float64) if not np.issubdtype(a.dtype, np.integer) else a for a in arrays]
    return _run(transform, arrays, VALUES)


def output_shape(transform: str, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of a transform's value, found without allocating it."""
    zeros = [np.broadcast_to(np.zeros((), np.int8), shape) for shape in shapes]
    return tuple(int(d) for d in _run(transform, zeros, SHAPES).shape)


def trace_indices(transform: str, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Evaluate on arrays of element numbers: says which source element lands where.

    Elementwise arithmetic with constants passes the numbers through; anything else that computes is an error.
    """
    return _run(transform, arrays, INDEX_TRACE)


def is_arithmetic(transform: str) -> bool:
    """Whether a transform computes on values, rather than only moving elements."""
    return any(
        isinstance(node, ast.BinOp) or (isinstance(node, ast.Call) and call_name(node) in _ARITHMETIC)
        for node in ast.walk(parse(transform))
    )


def call_name(node: ast.Call) -> str:
    """`transpose` for both `transpose(...)` and `ops.transpose(...)`, empty for anything else."""
    match node.func:
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="ops"), attr=name):
            return name
    return ""


def source_names(count: int) -> tuple[str, ...]:
    """The names a transform gives to `count` sources."""
    return ("x",) if count == 1 else tuple(f"x{i}" for i in range(count))


def names_used(transform: str) -> set[str]:
    """Source names that occur in a transform."""
    calls = {id(n.func) for n in ast.walk(parse(transform)) if isinstance(n, ast.Call)}
    nodes = (n for n in ast.walk(parse(transform)) if isinstance(n, ast.Name) and id(n) not in calls)
    return {n.id for n in nodes if n.id != "ops"}


def _run(transform: str, arrays: Sequence[np.ndarray], table: Table) -> np.ndarray:
    names = dict(zip(source_names(len(arrays)), arrays, strict=True))
    try:
        value = _value(parse(transform), names, table)
    except ConversionError:
        raise
    except Exception as error:  # whatever numpy says about arguments that do not fit
        shapes = ", ".join(f"{name}: {array.shape}" for name, array in names.items())
        raise fail("weight-transform", f"{transform} does not fit its sources: {error}", excerpt=shapes) from error
    return np.asarray(value)


def _value(node: ast.expr, names: Mapping[str, np.ndarray], table: Table) -> Any:
    match node:
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return value
        case ast.Tuple(elts=items):
            return tuple(_value(item, names, table) for item in items)
        case ast.List(elts=items):
            return [_value(item, names, table) for item in items]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return table["negative"](_value(operand, names, table))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return table[_BINARY[type(op)]](_value(left, names, table), _value(right, names, table))
        case ast.Subscript(value=value, slice=ast.Constant(value=int() as index)):
            return _value(value, names, table)[index]
        case ast.Call() if call_name(node) in table:
            return _call(node, names, table)
    raise fail(
        "weight-transform",
        f"a weight transform cannot contain {ast.unparse(node)}",
        hint=f"functions: {', '.join(sorted(table))}; names: {', '.join(names)}",
    )


def _call(node: ast.Call, names: Mapping[str, np.ndarray], table: Table) -> Any:
    arguments = [_value(argument, names, table) for argument in node.args]
    keywords = {str(k.arg): _value(k.value, names, table) for k in node.keywords}
    return table[call_name(node)](*arguments, **keywords)
