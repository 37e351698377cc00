"""Matching a rule at a node, with backtracking. The matcher looks through nothing: normalise first."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hf2khc.ir.expr import Expr, same
from hf2khc.ir.graph import Graph, Node
from hf2khc.ir.signatures import LIST_OPS, parameters, slot_names
from hf2khc.rewrite.evaluate import evaluate, holds
from hf2khc.rewrite.pattern import (
    Alternatives,
    Call,
    Expression,
    Keyword,
    Literal,
    Optional,
    Rest,
    Rule,
    TupleOf,
    Variable,
)

COMMUTATIVE = ("ops.add", "ops.multiply", "aten.add", "aten.mul")
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Match:
    """A rule that fits at a node.

    Args:
        root: name of the node.
        bindings: variable to a value's name, an attribute value, or a tuple of names for `name...`.
        nodes: names of the nodes that the pattern covers, the root first.
    """

    rule: Rule
    root: str
    bindings: Mapping[str, object]
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Miss:
    """A rule that does not fit, and how near it came.

    Args:
        depth: how many nodes fitted on the best attempt.
        node: where that attempt ended.
        reason: what was expected there.
    """

    rule: Rule
    root: str
    depth: int = 0
    node: str = ""
    reason: str = ""

    def __bool__(self) -> bool:
        return False


def match(rule: Rule, graph: Graph, node: Node) -> Match | Miss:
    """Match `rule` with its root at `node`."""
    if node.op not in rule.roots:
        return Miss(rule, node.name, 0, node.name, f"is {node.op}, not {' or '.join(sorted(rule.roots))}")
    matcher = _Matcher(graph, rule, node.name)
    for state in matcher.expression(rule.pattern, Reference(node.name), _State()):
        if matcher.is_closed(state) and matcher.guarded(state):
            return Match(rule, node.name, state.bindings, tuple(dict.fromkeys(state.nodes)))
    return matcher.nearest


@dataclass(frozen=True)
class Reference:
    """An operand; a slot that is no operand holds the attribute's value itself."""

    name: str


class _Absent:
    """What a slot holds that is neither an operand nor an attribute."""


ABSENT = _Absent()


@dataclass(frozen=True)
class _State:
    bindings: Mapping[str, object] = field(default_factory=dict)
    nodes: tuple[str, ...] = ()

    def bound(self, name: str, value: object) -> "_State":
        return replace(self, bindings={**self.bindings, name: value})


class _Matcher:
    """One attempt; generators yield every way to extend a state."""

    def __init__(self, graph: Graph, rule: Rule, root: str):
        self.graph, self.rule = graph, rule
        self.nearest = Miss(rule, root, -1)
        self._rank = (-1, False)

    def miss(self, state: _State, node: str, reason: str, is_op: bool = False) -> None:
        """Keep the reason if it is the nearest miss so far; that an op differs says more than that a place does."""
        rank = (len(state.nodes), is_op)
        if rank > self._rank:
            self._rank = rank
            self.nearest = replace(self.nearest, depth=len(state.nodes), node=node, reason=reason)

    def expression(self, pattern: Expression, slot: object, state: _State) -> Iterator[_State]:
        """Match what an operand's place holds."""
        if isinstance(pattern, Alternatives):
            for option in pattern.options:
                yield from self.expression(option, slot, state)
        elif isinstance(pattern, Variable | Optional):
            yield from self._variable(pattern.name, slot, state)
        elif isinstance(pattern, Call):
            yield from self._call(pattern, slot, state)
        elif isinstance(slot, Reference) or slot is ABSENT:
            self.miss(state, getattr(slot, "name", ""), f"is a value, not {_shown(pattern)}")
        else:
            yield from self._attribute(pattern, slot, state)

    def _variable(self, name: str, slot: object, state: _State) -> Iterator[_State]:
        if name == "_":
            if slot is ABSENT:
                yield state
        elif slot is ABSENT or isinstance(slot, Reference) == (name in self.rule.numbers):
            kind = "an attribute" if name in self.rule.numbers else "a value"
            self.miss(state, getattr(slot, "name", ""), f"{name} must be {kind}")
        else:
            yield from self._bind(name, slot.name if isinstance(slot, Reference) else slot, state)

    def _bind(self, name: str, value: object, state: _State) -> Iterator[_State]:
        if name not in state.bindings:
            yield state.bound(name, value)
        elif _equal(state.bindings[name], value):
            yield state
        else:
            self.miss(state, str(value), f"{name} is {state.bindings[name]} already")

    def _call(self, pattern: Call, slot: object, state: _State) -> Iterator[_State]:
        if not isinstance(slot, Reference):
            self.miss(state, "", f"{slot} is no {pattern.op}")
            return
        node = self.graph[slot.name]
        if node.op != pattern.op:
            self.miss(state, node.name, f"is {node.op}, not {pattern.op}", is_op=True)
            return
        inside = replace(state, nodes=(*state.nodes, node.name))
        slots, attributes = _parts(node, len(pattern.arguments))
        for order in _orders(node, slots):
            for matched in self._arguments(pattern.arguments, order, inside, pattern.open, node):
                yield from self._keywords(pattern, attributes, matched, node)

    def _arguments(self, patterns, slots, state: _State, is_open: bool, node: Node) -> Iterator[_State]:
        if not patterns:
            if is_open or all(slot is ABSENT for slot in slots):
                yield state
            else:
                self.miss(state, node.name, "has more operands")
            return
        first, rest = patterns[0], patterns[1:]
        if isinstance(first, Rest):
            if all(isinstance(slot, Reference) for slot in slots):
                yield from self._bind(first.name, tuple(slot.name for slot in slots), state)
            return
        slot = slots[0] if slots else ABSENT
        if isinstance(first, Optional) and slot is ABSENT:
            yield from self._arguments(rest, slots[1:], state, is_open, node)
            return
        for matched in self.expression(first, slot, state):
            yield from self._arguments(rest, slots[1:], matched, is_open, node)

    def _keywords(self, pattern: Call, attributes: Mapping, state: _State, node: Node) -> Iterator[_State]:
        named = {keyword.name for keyword in pattern.keywords}
        defaults = _defaults(node.op)
        for name, value in attributes.items():
            if name not in named and not pattern.open and not (name in defaults and _equal(value, defaults[name])):
                self.miss(state, node.name, f"has {name}={value}")
                return
        yield from self._each_keyword(pattern.keywords, {**defaults, **attributes}, state, node)

    def _each_keyword(
        self, keywords: Sequence[Keyword], values: Mapping, state: _State, node: Node
    ) -> Iterator[_State]:
        if not keywords:
            yield state
            return
        first, rest = keywords[0], keywords[1:]
        if first.name in values:
            value = values[first.name]
        elif first.default is not None:
            value = evaluate(first.default, self.graph, state.bindings)
        else:
            self.miss(state, node.name, f"has no {first.name}")
            return
        for matched in self._attribute(first.value, value, state, f"{first.name}=", node.name):
            yield from self._each_keyword(rest, values, matched, node)

    def _attribute(self, pattern: Expression, value, state: _State, name="", node="") -> Iterator[_State]:
        """Match an attribute's value."""
        if isinstance(value, Reference):
            self.miss(state, node, f"{name}%{value.name} is no attribute")
        elif isinstance(pattern, Variable):
            yield from (state,) if pattern.name == "_" else self._bind(pattern.name, value, state)
        elif isinstance(pattern, Alternatives):
            for option in pattern.options:
                yield from self._attribute(option, value, state, name, node)
        elif isinstance(pattern, TupleOf) and isinstance(value, tuple) and len(value) == len(pattern.items):
            yield from self._each_item(pattern.items, value, state, name, node)
        elif isinstance(pattern, Literal) and _equal(pattern.value, value):
            yield state
        else:
            self.miss(state, node, f"{name}{value} is not {_shown(pattern)}")

    def _each_item(self, patterns, values, state: _State, name: str, node: str) -> Iterator[_State]:
        if not patterns:
            yield state
            return
        for matched in self._attribute(patterns[0], values[0], state, name, node):
            yield from self._each_item(patterns[1:], values[1:], matched, name, node)

    def is_closed(self, state: _State) -> bool:
        """Whether no value inside the match, its root aside, is used outside it."""
        covered = set(state.nodes)
        for name in state.nodes[1:]:
            outside = [user.name for user in self.graph.users(name) if user.name not in covered]
            if name != state.nodes[0] and (outside or name in self.graph.outputs):
                self.miss(state, name, f"is used outside, by {', '.join(outside) or 'the outputs'}")
                return False
        return True

    def guarded(self, state: _State) -> bool:
        bindings = {**state.bindings, "root": state.nodes[0]}
        for guard in self.rule.guards:
            if not holds(guard, self.graph, bindings):
                self.miss(replace(state, nodes=(*state.nodes, "")), state.nodes[0], "a guard does not hold")
                return False
        return True


def _parts(node: Node, positional: int) -> tuple[list, dict[str, object]]:
    """What stands in the first `positional` places (all operands where places have no names), and the rest by name."""
    operands = [ABSENT if o is None else Reference(o) for o in node.operands]
    slots = slot_names(node.op)
    if not slots:
        return operands, dict(node.attrs)
    held = dict(node.attrs)
    held.update({name: o for name, o in zip(slots, operands, strict=False) if o is not ABSENT})
    defaults = _defaults(node.op)
    first = [held.pop(name, _or_absent(defaults.get(name))) for name in slots[:positional]]
    return first, held


def _or_absent(default: object) -> object:
    return ABSENT if default is None else default


def _defaults(op: str) -> dict[str, object]:
    """Default attribute values Keras declares; torch's are never written, so absence has to be matched there."""
    if not op.startswith(("ops.", "layers.")):
        return {}
    empty = inspect.Parameter.empty
    return {
        name: p.default for name, p in parameters(op).items() if p.default is not empty and name != LIST_OPS.get(op)
    }


def _orders(node: Node, slots: list) -> Iterator[list]:
    yield slots
    if node.op in COMMUTATIVE and len(slots) == 2 and not (node.level == "aten" and node.attrs):
        yield slots[::-1]


def _equal(a: object, b: object) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, Expr) or isinstance(b, Expr):
        kinds = (int, float, Expr)
        return isinstance(a, kinds) and isinstance(b, kinds) and same(a, b)
    if isinstance(a, bool) or isinstance(b, bool) or not isinstance(a, int | float) or not isinstance(b, int | float):
        return type(a) is type(b) and a == b
    if isinstance(a, float) or isinstance(b, float):
        return a == b or abs(a - b) <= _TOLERANCE * max(abs(a), abs(b))
    return a == b


def _shown(pattern: Expression) -> str:
    return str(pattern.value) if isinstance(pattern, Literal) else "a tuple like that of the rule"
