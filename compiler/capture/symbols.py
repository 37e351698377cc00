"""Sizes as torch traced them, in the IR's own expressions."""

from collections.abc import Mapping
from types import MappingProxyType

import sympy
import torch

from hf2khc.diagnostics import fail
from hf2khc.ir.expr import Expr, simplify


class Symbols:
    """Translates SymInts to ints and `Expr`s over named symbols.

    Args:
        names: torch's symbol (`s43`) to ours (`batch`).
        ranges: the sizes the program was exported for: torch's symbol to the smallest and the largest.
        settled: expressions over torch's symbols that are one number at all of these sizes.
    """

    def __init__(
        self,
        names: Mapping[str, str],
        ranges: Mapping[str, tuple[float, float]] = MappingProxyType({}),
        settled: Mapping[sympy.Basic, int] = MappingProxyType({}),
    ):
        self.names, self.ranges = dict(names), dict(ranges)
        self.settled = {expression: sympy.Integer(number) for expression, number in settled.items()}

    def dim(self, value) -> int | Expr:
        """A size: an int, a SymInt, or a node's SymInt value.

        Raises:
            ConversionError: the size depends on data or is no arithmetic of input sizes.
        """
        if isinstance(value, torch.SymInt):
            return simplify(self._text(value.node.expr.xreplace(self.settled)))
        return int(value)

    def scalar(self, value):
        """A Python or symbolic number."""
        if isinstance(value, torch.SymFloat | torch.SymBool):
            return simplify(self._text(value.node.expr))
        return self.dim(value) if isinstance(value, torch.SymInt) else value

    def _text(self, expr: sympy.Basic) -> str:
        if isinstance(expr, sympy.Symbol):
            if expr.name not in self.names:
                raise fail("data-dependent-size", f"a size depends on the values of a tensor ({expr.name})")
            return self.names[expr.name]
        if isinstance(expr, sympy.Integer | sympy.Float) or expr.is_number:
            return _number(expr)
        if type(expr).__name__ in ("Min", "Max"):
            within = self._decided(expr)
            if within is not None:
                return self._text(within)
        args = [f"({self._text(arg)})" for arg in expr.args]
        template = _TEMPLATES.get(type(expr).__name__)
        if template is None:
            raise fail("size-expression", f"a size is computed by {type(expr).__name__}: {expr}")
        return template(args)

    def _decided(self, expr: sympy.Basic) -> sympy.Basic | None:
        """The argument of a minimum or maximum that it always is, given the ranges: `min(512, seq)` is `seq`."""
        bounds = [self._bounds(arg) for arg in expr.args]
        if None in bounds:
            return None
        small = type(expr).__name__ == "Min"
        for arg, (low, high) in zip(expr.args, bounds, strict=True):  # type: ignore[misc]
            rest = [b for other, b in zip(expr.args, bounds, strict=True) if other is not arg]
            if all((high <= b[0]) if small else (low >= b[1]) for b in rest):  # type: ignore[index]
                return arg
        return None

    def _bounds(self, expr: sympy.Basic) -> tuple[float, float] | None:
        if expr.is_number:
            return float(expr), float(expr)  # type: ignore[arg-type]
        number, rest = expr.as_coeff_Mul() if expr.is_Mul else expr.as_coeff_Add()
        inner = self.ranges.get(str(expr)) if rest == expr else self._bounds(rest)
        if inner is None or rest == expr:
            return inner
        ends = [float(number * end if expr.is_Mul else number + end) for end in inner]
        return min(ends), max(ends)


def _number(expr: sympy.Basic) -> str:
    if isinstance(expr, sympy.Rational) and not isinstance(expr, sympy.Integer):
        return f"({expr.p} / {expr.q})"
    return str(int(expr)) if expr.is_integer else repr(float(expr))


_TEMPLATES = {
    "Add": " + ".join,
    "Mul": " * ".join,
    "Pow": " ** ".join,
    "FloorDiv": " // ".join,
    "CleanDiv": " // ".join,
    "IntTrueDiv": " / ".join,
    "FloatTrueDiv": " / ".join,
    "Mod": " % ".join,
    "PythonMod": " % ".join,
    "Max": lambda args: f"max({', '.join(args)})",
    "Min": lambda args: f"min({', '.join(args)})",
    "ModularIndexing": lambda args: f"({args[0]} // {args[1]}) % {args[2]}",
    "CeilToInt": lambda args: f"ceil({args[0]})",
    "CeilDiv": lambda args: f"-(-{args[0]} // {args[1]})",
    "TruncToInt": lambda args: f"int({args[0]})",
    "FloorToInt": lambda args: f"({args[0]} // 1)",
    "ToFloat": lambda args: args[0],
    "OpaqueUnaryFn_sqrt": lambda args: f"sqrt({args[0]})",
    "PowByNatural": " ** ".join,
}
