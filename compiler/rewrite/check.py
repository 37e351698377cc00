"""Checks of rules when they are loaded: what can be wrong with a rule is wrong before any model is seen."""

from collections.abc import Iterator, Sequence

from hf2khc.diagnostics import ConversionError, Diagnostic
from hf2khc.ir.evaluate import hub_function
from hf2khc.ir.signatures import LIST_OPS, function, parameters, slot_names
from hf2khc.rewrite.guards import ARITHMETIC, FUNCTIONS
from hf2khc.rewrite.pattern import (
    Alternatives,
    Call,
    Expression,
    Literal,
    Place,
    Rest,
    Rule,
    TupleOf,
    Variable,
    names,
)

LEVELS = ("aten", "ops", "hub", "layers")
ROOT = "root"


def check_rules(rules: Sequence[Rule]) -> None:
    """Raise a `ConversionError` with everything that is wrong with the rules."""
    problems = [d for rule in rules for d in _problems(rule)]
    seen: set[str] = set()
    for rule in rules:
        if rule.name in seen:
            problems.append(_diagnostic(rule, rule.place, f"there are two rules named {rule.name}"))
        seen.add(rule.name)
    if problems:
        raise ConversionError(*problems)


def _problems(rule: Rule) -> Iterator[Diagnostic]:
    yield from _binding(rule)
    if not isinstance(rule.pattern, Call | Alternatives) or not rule.roots:
        yield _diagnostic(rule, rule.place, "a pattern must be rooted at an op")
    yield from _operands(rule, rule.pattern)
    yield from _operands(rule, rule.template, is_template=True)
    for guard in rule.guards:
        for side in (guard.left, guard.right):
            if side is not None:
                yield from _attribute(rule, side)


def _binding(rule: Rule) -> Iterator[Diagnostic]:
    bound = {variable.name for variable in names(rule.pattern)}
    guards = [side for guard in rule.guards for side in (guard.left, guard.right) if side is not None]
    for expression in (rule.pattern, rule.template, *guards):
        for variable in names(expression):
            if variable.name == ROOT:
                continue
            if variable.name not in rule.variables:
                yield _diagnostic(rule, variable.place, f"{variable.name} is not a variable of rule {rule.name}")
            elif variable.name not in bound:
                yield _diagnostic(rule, variable.place, f"{variable.name} is not bound by the pattern")
    for name in rule.variables:
        if name not in bound:
            yield _diagnostic(rule, rule.place, f"variable {name} of rule {rule.name} does not occur in the pattern")


def _operands(rule: Rule, expression: Expression, is_template: bool = False) -> Iterator[Diagnostic]:
    """Problems of an expression that stands for a value of the graph."""
    if isinstance(expression, Alternatives):
        for option in expression.options:
            yield from _operands(rule, option, is_template)
    if isinstance(expression, TupleOf):
        yield _diagnostic(rule, rule.place, "a tuple is no operand")
    if not isinstance(expression, Call):
        return
    if is_number(rule, expression) and is_template:
        yield from _attribute(rule, expression)
        return
    yield from _call(rule, expression, is_template)
    for argument in expression.arguments:
        yield from _operands(rule, argument, is_template)
    for keyword in expression.keywords:
        yield from _attribute(rule, keyword.value)
        if keyword.default is not None and is_template:
            yield _diagnostic(rule, expression.place, "a default has no meaning in a rewrite")


def is_number(rule: Rule, expression: Expression) -> bool:
    """Whether an expression in an operand's place is computed from attribute values alone."""
    if isinstance(expression, Literal):
        return True
    if isinstance(expression, Variable):
        return expression.name in rule.numbers
    if not isinstance(expression, Call) or expression.keywords:
        return False
    name = expression.op.removeprefix("ops.")
    if name in FUNCTIONS and function(expression.op) is None:
        return True
    return name in ARITHMETIC and all(is_number(rule, argument) for argument in expression.arguments)


def _call(rule: Rule, call: Call, is_template: bool) -> Iterator[Diagnostic]:
    level = call.op.partition(".")[0]
    if call.op == "item":
        if is_template:
            yield _diagnostic(rule, call.place, "a rewrite never makes one value of several")
    elif level not in LEVELS:
        yield _diagnostic(rule, call.place, f"{call.op}: there is no level {level}")
    elif level == "aten" and is_template:
        yield _diagnostic(rule, call.place, "a rewrite never makes an aten op")
    elif level in ("ops", "layers"):
        yield from _keras_call(rule, call)
    elif level == "hub" and hub_function(call.op) is None:
        yield _diagnostic(rule, call.place, f"{call.op} is not defined in ir/hub.py")
    if level != "aten" and call.open and is_template:
        yield _diagnostic(rule, call.place, "`...` has no meaning in a rewrite")


def _keras_call(rule: Rule, call: Call) -> Iterator[Diagnostic]:
    if function(call.op) is None:
        yield _diagnostic(rule, call.place, f"{call.op} does not exist in Keras")
        return
    known = parameters(call.op)
    for keyword in call.keywords:
        if keyword.name not in known:
            hint = "it takes " + ", ".join(known)
            yield _diagnostic(rule, call.place, f"{call.op} has no argument {keyword.name}", hint)
    if call.op.startswith("layers.") or call.op in LIST_OPS or any(isinstance(a, Rest) for a in call.arguments):
        return
    slots = slot_names(call.op)
    if len(call.arguments) > len(slots):
        yield _diagnostic(rule, call.place, f"{call.op} takes at most {len(slots)} operands")
    # What is left out with `_` a keyword may say.
    given = {slot for slot, value in zip(slots, call.arguments, strict=False) if value != Variable("_")}
    for keyword in call.keywords:
        if keyword.name in given:
            yield _diagnostic(rule, call.place, f"{call.op} is given {keyword.name} twice")


def _attribute(rule: Rule, expression: Expression) -> Iterator[Diagnostic]:
    """Problems of an expression that stands for an attribute value."""
    if isinstance(expression, Call):
        name = expression.op.removeprefix("ops.")
        if name not in FUNCTIONS and name not in ARITHMETIC:
            hint = "known: " + ", ".join(sorted(FUNCTIONS))
            yield _diagnostic(rule, expression.place, f"there is no guard or function {name}", hint)
        for argument in expression.arguments:
            yield from _attribute(rule, argument)
    elif isinstance(expression, TupleOf):
        for item in expression.items:
            yield from _attribute(rule, item)


def _diagnostic(rule: Rule, place: Place, message: str, hint: str = "") -> Diagnostic:
    return Diagnostic("rule", message, f"{rule.file}:{place.line}:{place.column}", hint=hint)
