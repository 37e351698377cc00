"""Attribute expressions and guards of rules, evaluated over the bindings of a match."""

import operator
from collections.abc import Mapping

from hf2khc.ir.expr import Expr, same
from hf2khc.ir.graph import Graph
from hf2khc.rewrite.guards import ARITHMETIC, FUNCTIONS
from hf2khc.rewrite.pattern import Alternatives, Call, Expression, Guard, Literal, TupleOf, Variable

_COMPARE = {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}


def evaluate(expression: Expression, graph: Graph, bindings: Mapping[str, object]):
    """The value of an attribute expression; an unbound optional variable is `None`."""
    if isinstance(expression, Literal):
        return expression.value
    if isinstance(expression, TupleOf):
        return tuple(evaluate(item, graph, bindings) for item in expression.items)
    if isinstance(expression, Variable):
        return bindings.get(expression.name)
    assert isinstance(expression, Call), f"{expression} is no attribute"
    name = expression.op.removeprefix("ops.")
    function = FUNCTIONS[name] if name in FUNCTIONS else ARITHMETIC[name]
    return function(graph, *(evaluate(argument, graph, bindings) for argument in expression.arguments))


def holds(guard: Guard, graph: Graph, bindings: Mapping[str, object]) -> bool:
    """Whether a guard holds."""
    left = evaluate(guard.left, graph, bindings)
    if guard.compare is None:
        return bool(left) != guard.negated
    assert guard.right is not None and not isinstance(guard.right, Alternatives)
    right = evaluate(guard.right, graph, bindings)
    if guard.compare in ("==", "!="):
        is_equal = same(left, right) if isinstance(left, Expr) or isinstance(right, Expr) else left == right
        return (is_equal == (guard.compare == "==")) != guard.negated
    if isinstance(left, Expr) or isinstance(right, Expr):
        return guard.negated  # the order of a symbol and a number is not known
    return _COMPARE[guard.compare](left, right) != guard.negated
