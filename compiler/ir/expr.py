"""Arithmetic expressions over shape symbols, config fields and graph parameters."""

import ast
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
_FUNCTIONS: dict[str, Callable] = {
    "max": max,
    "min": min,
    "ceil": math.ceil,
    "int": int,
    "sqrt": math.sqrt,
    "log": math.log,
    "abs": abs,
    "round": round,
}

# Two bindings of every symbol; expressions that agree at both are taken as equal.
_PRIMES = (10007, 10009, 10037, 10039, 10061, 10067, 10069, 10079, 10091, 10093, 10099, 10103)
# To which powers they stand for names, one after another: all of one size, rising, falling.
_MAGNITUDES = ((1, 1, 1, 1), (1, 2, 3, 4), (4, 3, 2, 1))


@functools.lru_cache(maxsize=100_000)
def _parsed(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


@dataclass(frozen=True)
class Expr:
    """An expression in Python syntax, such as `config.hidden_size // config.num_attention_heads`.

    Operators `+ - * / // % **`, functions `max min ceil int sqrt log abs round`, and dotted names.
    """

    text: str

    @staticmethod
    def of(text: str) -> "Expr":
        """The expression in canonical spelling."""
        return Expr(ast.unparse(_parsed(text)))

    def __str__(self) -> str:
        return self.text

    @property
    def names(self) -> frozenset[str]:
        """The dotted names that occur."""
        return frozenset(_names(_parsed(self.text)))

    def evaluate(self, env: Mapping[str, object]):
        """The value where names are bound by `env`.

        Raises:
            KeyError: a name is not bound.
        """
        names, function = compiled(self.text)
        return function(*[env[name] for name in names])

    def substitute(self, mapping: Mapping[str, object]):
        """The expression with names replaced; a number where none is left."""
        tree = _Substitute({k: _parsed(str(v)) for k, v in mapping.items()}).visit(ast.parse(self.text, mode="eval"))
        return simplify(ast.unparse(tree.body))


def simplify(text: str):
    """`text` as a number where it has no names, else as an `Expr`."""
    if _names(_parsed(text)):
        return Expr.of(text)
    return Expr(text).evaluate({})


def same(a, b) -> bool:
    """Whether two dimensions or attribute values are equal; expressions by value at several bindings of their names."""
    if not isinstance(a, Expr) and not isinstance(b, Expr):
        return type(a) is type(b) and a == b
    names = sorted(names_of(a) | names_of(b))
    # A quotient of numbers of one size is 1, whatever they are: some are far larger. Powers of those are out of reach.
    magnitudes = _MAGNITUDES[:1] if "**" in f"{a}{b}" else _MAGNITUDES
    for shift in (0, 5):
        for powers in magnitudes:
            env = {n: _PRIMES[(i + shift) % len(_PRIMES)] ** powers[i % len(powers)] for i, n in enumerate(names)}
            if _defined(a, env) != _defined(b, env):
                return False
    return True


def _defined(value, env: Mapping[str, object]):
    """`value` evaluated; None where it divides by what rounds to 0 at these numbers, which no config need have."""
    try:
        return evaluate(value, env)
    except ZeroDivisionError:
        return None


def entry_of(name: str) -> tuple[str, int] | None:
    """The list and the place that `config.hidden_sizes._0` means, `None` for another name."""
    owner, _, place = name.rpartition("._")
    return (owner, int(place)) if owner and place.isdigit() else None


def names_of(value) -> frozenset[str]:
    """The names in a value: a number, an `Expr`, or a tuple of them."""
    if isinstance(value, Expr):
        return value.names
    if isinstance(value, tuple):
        return frozenset().union(*map(names_of, value))
    return frozenset()


def evaluate(value, env: Mapping[str, object]):
    """`value` with every `Expr` in it (tuples included) evaluated."""
    if isinstance(value, Expr):
        return value.evaluate(env)
    if isinstance(value, tuple):
        return tuple(evaluate(v, env) for v in value)
    return value


def substitute(value, mapping: Mapping[str, object]):
    """`value` with names replaced in every `Expr` in it; a bare name may be replaced by any value."""
    if isinstance(value, Expr):
        if value.text in mapping:
            return mapping[value.text]
        return value.substitute(mapping) if value.names & mapping.keys() else value
    if isinstance(value, tuple):
        return tuple(substitute(v, mapping) for v in value)
    return value


def _names(tree: ast.expr) -> set[str]:
    dotted = _dotted(tree)
    if dotted is not None:
        return {dotted}
    if isinstance(tree, ast.Call):
        return set().union(*map(_names, tree.args))
    return set().union(*(_names(child) for child in ast.iter_child_nodes(tree) if isinstance(child, ast.expr)))


def _dotted(tree: ast.expr) -> str | None:
    if isinstance(tree, ast.Name):
        return tree.id
    if isinstance(tree, ast.Attribute):
        head = _dotted(tree.value)
        return None if head is None else f"{head}.{tree.attr}"
    return None


@functools.lru_cache(maxsize=100_000)
def compiled(text: str) -> tuple[tuple[str, ...], Callable]:
    """The names in an expression, sorted, and the function of their values.

    Raises:
        ValueError: it is no arithmetic expression.
    """
    names = tuple(sorted(_names(_parsed(text))))
    arguments: dict[str, ast.expr] = {name: ast.Name(f"_{place}", ast.Load()) for place, name in enumerate(names)}
    body = _Substitute(arguments).visit(ast.parse(text, mode="eval").body)
    _check(body)
    given = [ast.arg(f"_{place}") for place in range(len(names))]
    parameters = ast.arguments(posonlyargs=[], args=given, kwonlyargs=[], kw_defaults=[], defaults=[])
    function = ast.fix_missing_locations(ast.Expression(ast.Lambda(parameters, body)))
    return names, eval(compile(function, text, "eval"), {"__builtins__": {}, **_FUNCTIONS})


def _check(tree: ast.expr) -> None:
    """Nothing but arithmetic is run."""
    known = (
        isinstance(tree, ast.Constant | ast.Name)
        or isinstance(tree, ast.UnaryOp)
        and isinstance(tree.op, ast.USub)
        or isinstance(tree, ast.BinOp)
        and isinstance(tree.op, _OPERATORS)
        or isinstance(tree, ast.Call)
        and isinstance(tree.func, ast.Name)
        and tree.func.id in _FUNCTIONS
    )
    if not known:
        raise ValueError(f"not an arithmetic expression: {ast.unparse(tree)}")
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.expr):
            _check(child)


class _Substitute(ast.NodeTransformer):
    def __init__(self, mapping: dict[str, ast.expr]):
        self.mapping = mapping

    def visit_Name(self, node):
        return self.mapping.get(node.id, node)

    def visit_Attribute(self, node):
        return self.mapping.get(_dotted(node) or "", node)

    def visit_Call(self, node):
        node.args = [self.visit(arg) for arg in node.args]
        return node
