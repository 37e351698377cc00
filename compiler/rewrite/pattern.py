"""The syntax tree of a rule. The same expressions serve as patterns, as templates and in guards."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Place:
    """Where an expression stands in its file; 1-based."""

    line: int = 0
    column: int = 0


@dataclass(frozen=True)
class Literal:
    """A number, a string, a bool or `none`."""

    value: object


@dataclass(frozen=True)
class Variable:
    """A name: in an operand's place a value of the graph, in an attribute's place its value. `_` stands for nothing."""

    name: str
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True)
class Optional:
    """`[name]`: an operand that may be absent."""

    name: str
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True)
class Rest:
    """`name...`: all remaining operands."""

    name: str
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True)
class Keyword:
    """`name=value else default`; without a default, an attribute that is absent does not match."""

    name: str
    value: "Expression"
    default: "Expression | None" = None


@dataclass(frozen=True)
class TupleOf:
    items: tuple["Expression", ...]


@dataclass(frozen=True)
class Alternatives:
    options: tuple["Expression", ...]


@dataclass(frozen=True)
class Call:
    """An op, or in an attribute's place arithmetic or a function of guards.py.

    Args:
        op: with its level; bare names got `ops.`.
        arguments: positional patterns.
        keywords: attribute patterns.
        open: `...` was written: further operands and attributes may follow.
    """

    op: str
    arguments: tuple["Expression", ...] = ()
    keywords: tuple[Keyword, ...] = ()
    open: bool = False
    place: Place = field(default=Place(), compare=False)


Expression = Literal | Variable | Optional | Rest | TupleOf | Alternatives | Call


@dataclass(frozen=True)
class Guard:
    """`left`, `not left` or `left OP right`, evaluated once the pattern has matched."""

    left: Expression
    compare: str | None = None
    right: Expression | None = None
    negated: bool = False


@dataclass(frozen=True)
class Rule:
    """One rewrite.

    Args:
        name: of the idiom.
        variables: in the order of the header.
        numbers: the variables that stand for attribute values; the others stand for values of the graph.
        place: file and position, for diagnostics.
    """

    name: str
    variables: tuple[str, ...]
    pattern: Expression
    template: Expression
    guards: tuple[Guard, ...] = ()
    numbers: frozenset[str] = frozenset()
    file: str = ""
    place: Place = Place()

    @functools.cached_property
    def roots(self) -> frozenset[str]:
        """The ops a match can be rooted at."""
        options = self.pattern.options if isinstance(self.pattern, Alternatives) else (self.pattern,)
        return frozenset(op for option in options for op in _roots(option))


def _roots(pattern: Expression) -> Iterator[str]:
    if isinstance(pattern, Call):
        yield pattern.op
    elif isinstance(pattern, Alternatives):
        for option in pattern.options:
            yield from _roots(option)


def children(expression: Expression) -> tuple[Expression, ...]:
    """The direct parts of an expression, attributes included."""
    if isinstance(expression, Call):
        keywords = (part for k in expression.keywords for part in (k.value, k.default) if part is not None)
        return (*expression.arguments, *keywords)
    if isinstance(expression, Alternatives):
        return expression.options
    return expression.items if isinstance(expression, TupleOf) else ()


def names(expression: Expression) -> Iterator[Variable | Optional | Rest]:
    """Every variable that occurs, in order."""
    if isinstance(expression, Variable | Optional | Rest) and expression.name != "_":
        yield expression
    for child in children(expression):
        yield from names(child)


def calls(expression: Expression) -> Iterator[Call]:
    """Every call, outermost first."""
    if isinstance(expression, Call):
        yield expression
    for child in children(expression):
        yield from calls(child)
