"""From attribute values to Python text."""

import ast
import re
from collections.abc import Callable, Mapping

from hf2khc.ir.expr import Expr

# Functions of an `Expr` that Python has under another name.
_MODULES = {"sqrt": "math.sqrt", "log": "math.log", "ceil": "math.ceil"}
_DYNAMIC = {"max": "ops.maximum", "min": "ops.minimum"}

Resolve = Callable[[str], str]


def literal(value, resolve: Resolve, dynamic: bool = False) -> str:
    """`value` as Python text; the names of every `Expr` in it are spelled by `resolve`."""
    if isinstance(value, Expr):
        return expression(value, resolve, dynamic)
    if isinstance(value, tuple | list):
        items = ", ".join(literal(item, resolve, dynamic) for item in value)
        if isinstance(value, list):
            return f"[{items}]"
        return f"({items},)" if len(value) == 1 else f"({items})"
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return f'float("{value}")'
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return number(value) if isinstance(value, float) else repr(value)


def expression(expr: Expr, resolve: Resolve, dynamic: bool = False) -> str:
    """An `Expr` as Python text.

    Args:
        expr: the expression.
        resolve: spells a name.
        dynamic: whether a name may be a tensor, for which Python's `max` does not do.
    """
    tree = _Spell(resolve, {**_MODULES, **_DYNAMIC} if dynamic else _MODULES).visit(ast.parse(expr.text, mode="eval"))
    return re.sub(r"\*\* \((-[\d.]+)\)", r"** \1", ast.unparse(tree))


def number(value: float) -> str:
    """A float as short as Python reads it back: `-1e9`, `1e-5`."""
    text = repr(value)
    mantissa, _, exponent = text.partition("e")
    if exponent:
        return f"{mantissa}e{int(exponent)}"
    digits = text.removesuffix(".0").lstrip("-")
    zeros = len(digits) - len(digits.rstrip("0")) if text.endswith(".0") else 0
    if zeros < 6:
        return text
    short = f"{'-' if value < 0 else ''}{digits[:-zeros]}e{zeros}"
    return short if float(short) == value else text


class _Spell(ast.NodeTransformer):
    def __init__(self, resolve: Resolve, functions: Mapping[str, str]):
        self.resolve = resolve
        self.functions = functions

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return _parsed(self.resolve(node.id))

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return _parsed(self.resolve(ast.unparse(node)))

    def visit_Call(self, node: ast.Call) -> ast.expr:
        name = ast.unparse(node.func)
        arguments = [self.visit(argument) for argument in node.args]
        return ast.Call(_parsed(self.functions.get(name, name)), arguments, [])


def _parsed(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body
