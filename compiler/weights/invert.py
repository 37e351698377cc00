"""Transforms read backwards, for the export of a Keras model to a checkpoint."""

import ast
from collections.abc import Sequence
from typing import Any

from hf2khc.diagnostics import ConversionError, fail
from hf2khc.weights.transform import call_name, output_shape, parse, source_names

_SWAPPED = {"add": "subtract", "subtract": "add", "multiply": "divide", "divide": "multiply"}
_OPERATOR = {ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "divide"}
Shape = tuple[int, ...]


def invert(transform: str, shapes: Sequence[Shape]) -> tuple[str, ...]:
    """The inverse of a transform: for each source, an expression over `x`, the transform's value.

    Args:
        transform: an expression over `x`, or over `x0`, `x1`, ...
        shapes: shapes of the sources.

    Raises:
        ConversionError: `not-invertible`, when the transform loses or mixes elements.
    """
    names = source_names(len(shapes))
    found: dict[str, str] = {}
    _walk(parse(transform), "x", dict(zip(names, shapes, strict=True)), found)
    if set(found) != set(names):
        raise fail("not-invertible", f"the transform does not use {sorted(set(names) - set(found))}", excerpt=transform)
    return tuple(found[name] for name in names)


def is_invertible(transform: str, shapes: Sequence[Shape]) -> bool:
    """Whether `invert` gives an answer."""
    try:
        invert(transform, shapes)
    except ConversionError:
        return False
    return True


def _walk(node: ast.expr, value: str, shapes: dict[str, Shape], found: dict[str, str]) -> None:
    """`value` computes what `node` computes; push it down to the sources."""
    match node:
        case ast.Name(id=name) if name in found:
            raise fail("not-invertible", f"{name} is used twice")
        case ast.Name(id=name) if name in shapes:
            found[name] = value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            _walk(operand, f"negative({value})", shapes, found)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATOR:
            operand, inverse = _arithmetic(_OPERATOR[type(op)], left, right, value)
            _walk(operand, inverse, shapes, found)
        case ast.Call() if call_name(node) in _SWAPPED:
            operand, inverse = _arithmetic(call_name(node), node.args[0], node.args[1], value)
            _walk(operand, inverse, shapes, found)
        case ast.Call() if call_name(node) in ("concatenate", "stack"):
            for item, part in zip(node.args[0].elts, _parts(node, value, shapes), strict=True):  # type: ignore[attr-defined]
                _walk(item, part, shapes, found)
        case ast.Call() if call_name(node) in _SINGLE:
            _walk(node.args[0], _SINGLE[call_name(node)](node, value, shapes), shapes, found)
        case _:
            raise fail("not-invertible", f"no inverse is known for {ast.unparse(node)}")


def _arithmetic(name: str, left: ast.expr, right: ast.expr, value: str) -> tuple[ast.expr, str]:
    """The operand that is not a constant, and the expression that gives it back."""
    for operand, constant in ((left, right), (right, left)):
        try:
            number = ast.literal_eval(constant)
        except ValueError:
            continue
        if operand is right and name == "subtract":
            return operand, f"subtract({number!r}, {value})"
        if operand is right and name == "divide":
            return operand, f"divide({number!r}, {value})"
        if name == "multiply" and number == 0:
            break
        return operand, f"{_SWAPPED[name]}({value}, {number!r})"
    raise fail("not-invertible", f"{name} of {ast.unparse(left)} and {ast.unparse(right)} has no inverse")


def _argument(node: ast.Call, position: int, name: str, default: Any = None) -> Any:
    if len(node.args) > position:
        return ast.literal_eval(node.args[position])
    return next((ast.literal_eval(k.value) for k in node.keywords if k.arg == name), default)


def _shape(node: ast.expr, shapes: dict[str, Shape]) -> Shape:
    """The shape of a subexpression; unused names do no harm, so it is evaluated over all sources."""
    return output_shape(ast.unparse(node), list(shapes.values()))


def _parts(node: ast.Call, value: str, shapes: dict[str, Shape]) -> list[str]:
    axis = int(_argument(node, 1, "axis", 0))
    items = node.args[0].elts  # type: ignore[attr-defined]
    if call_name(node) == "stack":
        return [f"squeeze(split({value}, {len(items)}, axis={axis})[{i}], axis={axis})" for i in range(len(items))]
    total, stops = 0, []
    for item in items:
        total += _shape(item, shapes)[axis]
        stops.append(total)
    return [f"split({value}, {stops[:-1]}, axis={axis})[{i}]" for i in range(len(items))]


def _transpose(node: ast.Call, value: str, shapes: dict[str, Shape]) -> str:
    axes = _argument(node, 1, "axes")
    if axes is None:
        return f"transpose({value})"
    rank = len(axes)
    positive = [a % rank for a in axes]
    return f"transpose({value}, {tuple(positive.index(i) for i in range(rank))})"


def _reshape(node: ast.Call, value: str, shapes: dict[str, Shape]) -> str:
    return f"reshape({value}, {_shape(node.args[0], shapes)})"


def _flip(node: ast.Call, value: str, shapes: dict[str, Shape]) -> str:
    return f"flip({value}, axis={_argument(node, 1, 'axis')})"


_SINGLE = {
    "transpose": _transpose, "reshape": _reshape, "squeeze": _reshape, "expand_dims": _reshape, "flip": _flip,
    "negative": lambda node, value, shapes: f"negative({value})",
    "cast": lambda node, value, shapes: value,
}  # fmt: skip
