"""From `.rules` text to rules."""

import functools
import importlib.resources
from collections.abc import Sequence
from importlib.resources.abc import Traversable
from pathlib import Path

import lark

from hf2khc.diagnostics import fail
from hf2khc.rewrite.check import check_rules
from hf2khc.rewrite.guards import ARITHMETIC
from hf2khc.rewrite.pattern import (
    Alternatives,
    Call,
    Expression,
    Guard,
    Keyword,
    Literal,
    Optional,
    Place,
    Rest,
    Rule,
    TupleOf,
    Variable,
    names,
)

_WORDS = {"true": True, "false": False, "none": None, "inf": float("inf")}


def load_rules(path: Path | Traversable) -> tuple[Rule, ...]:
    """The rules of a file, in order.

    Raises:
        ConversionError: syntax errors, unbound variables, unknown ops, keywords or guards, with file:line:column.
    """
    return parse_rules(path.read_text(), path.name)


def parse_rules(text: str, file: str = "<rules>") -> tuple[Rule, ...]:
    """The rules of a text; see `load_rules`."""
    try:
        tree = _parser().parse(text)
    except lark.UnexpectedInput as error:
        place = f"{file}:{error.line}:{error.column}"
        raise fail("rule-syntax", "this is not a rule", location=place, excerpt=error.get_context(text)) from None
    rules = tuple(_Build(file).transform(tree))
    check_rules(rules)
    return rules


@functools.lru_cache(maxsize=1)
def _parser() -> lark.Lark:
    source = importlib.resources.files("hf2khc.grammar").joinpath("rewrite.lark").read_text()
    return lark.Lark(source, parser="lalr", propagate_positions=True, maybe_placeholders=True)


def _infix(op: str):
    def build(self, meta, items):
        return Call(f"ops.{op}", tuple(items), place=Place(meta.line, meta.column))

    return lark.v_args(meta=True)(build)


def _optional_infix(op: str):
    def build(self, meta, items):
        with_it = Call(f"ops.{op}", tuple(items), place=Place(meta.line, meta.column))
        return Alternatives((with_it, items[0]))

    return lark.v_args(meta=True)(build)


class _Build(lark.Transformer):
    add, subtract, multiply, divide = map(_infix, ("add", "subtract", "multiply", "divide"))
    floor_divide, power = map(_infix, ("floor_divide", "power"))
    optional_add, optional_subtract, optional_multiply = map(_optional_infix, ("add", "subtract", "multiply"))

    def __init__(self, file: str):
        super().__init__()
        self.file = file

    def start(self, items):
        return items

    @lark.v_args(meta=True)
    def rule(self, meta, items):
        strings = [str(item) for item in items if isinstance(item, lark.Token)]
        parts: dict[str, Expression] = dict(item for item in items if isinstance(item, tuple))
        guards = tuple(g for item in items if isinstance(item, list) for g in item)
        pattern, template = parts["match"], parts["rewrite"]
        numbers = _numbers(pattern, template) | _guarded_numbers(guards)
        place = Place(meta.line, meta.column)
        return Rule(strings[0], tuple(strings[1:]), pattern, template, guards, numbers, self.file, place)

    def match(self, items):
        return "match", items[0]

    def rewrite(self, items):
        return "rewrite", items[0]

    def where(self, items):
        return [item for item in items if item is not None]

    def guard(self, items):
        negated, left, compare, right = items
        return Guard(left, None if compare is None else str(compare), right, negated is not None)

    def alternatives(self, items):
        return items[0] if len(items) == 1 else Alternatives(tuple(items))

    @lark.v_args(meta=True)
    def negative(self, meta, items):
        (item,) = items
        if isinstance(item, Literal) and isinstance(item.value, int | float):
            return Literal(-item.value)
        return Call("ops.negative", (item,), place=Place(meta.line, meta.column))

    def number(self, items):
        text = str(items[0])
        return Literal(float(text) if any(c in text for c in ".e") else int(text))

    def string(self, items):
        return Literal(str(items[0])[1:-1])

    @lark.v_args(meta=True)
    def name(self, meta, items):
        text = str(items[0])
        return Literal(_WORDS[text]) if text in _WORDS else Variable(text, Place(meta.line, meta.column))

    @lark.v_args(meta=True)
    def call(self, meta, items):
        name, *arguments = items
        arguments = [a for a in arguments if a is not None]
        op = str(name) if "." in name or name == "item" else f"ops.{name}"
        return Call(
            op,
            tuple(a for a in arguments if not isinstance(a, Keyword) and a is not ...),
            tuple(a for a in arguments if isinstance(a, Keyword)),
            any(a is ... for a in arguments),
            Place(meta.line, meta.column),
        )

    def tuple(self, items):
        return TupleOf(tuple(items))

    def keyword(self, items):
        name, value, default = items
        return Keyword(str(name), value, default)

    @lark.v_args(meta=True)
    def optional(self, meta, items):
        return Optional(str(items[0]), Place(meta.line, meta.column))

    @lark.v_args(meta=True)
    def rest(self, meta, items):
        return Rest(str(items[0]), Place(meta.line, meta.column))

    def open(self, items):
        return ...


def _numbers(*expressions: Expression) -> frozenset[str]:
    """Variables that stand in an attribute's place somewhere, outside the arguments of a function."""
    found: set[str] = set()
    todo: list[Expression] = list(expressions)
    while todo:
        item = todo.pop()
        if isinstance(item, Call):
            todo += item.arguments
            found.update(name for keyword in item.keywords for name in _bare(keyword.value))
        elif isinstance(item, Alternatives):
            todo += item.options
    return frozenset(found)


def _bare(value: Expression) -> Sequence[str]:
    """Names in an attribute that are not arguments of a named function."""
    if isinstance(value, Call) and value.op.removeprefix("ops.") not in ARITHMETIC:
        return ()
    if isinstance(value, Call):
        return [name for argument in value.arguments for name in _bare(argument)]
    if isinstance(value, TupleOf):
        return [name for item in value.items for name in _bare(item)]
    return [variable.name for variable in names(value)]


def _guarded_numbers(guards: Sequence[Guard]) -> frozenset[str]:
    """Variables a guard says to be numbers."""
    tests = ("ops.is_number", "ops.is_int", "ops.is_float")
    return frozenset(v.name for g in guards if isinstance(g.left, Call) and g.left.op in tests for v in names(g.left))
