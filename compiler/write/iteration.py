"""Graph parameters that change from one iteration of a loop to the next."""

from hf2khc.diagnostics import fail
from hf2khc.ir.expr import Expr
from hf2khc.ir.graph import Node
from hf2khc.write.plan import as_ir
from hf2khc.write.scope import Scope


def iteration_text(scope: Scope, node: Node, parameter: str) -> str:
    """The argument for a parameter of the graph that a `call` or `loop` runs; in a loop `i` may occur in it.

    Raises:
        ConversionError: `layer-values`, for values per layer without a field, a period, or a single exception.
    """
    value = node.attrs[parameter]
    start = node.attrs.get("start", 0)
    if node.op != "loop":
        return scope.static(value)
    if isinstance(value, Expr) and value.names == {value.text} and not scope.is_size(value.text):
        given = scope.analysis.plan.by_source.get(value.text)
        indexed = given is not None and isinstance(given.value, list | tuple)
        return f"{scope.static(value)}[{_index(scope, start)}]" if indexed else scope.static(value)
    if not isinstance(value, tuple):
        return scope.static(value)
    return _series(scope, node, parameter, value, start)


def _series(scope: Scope, node: Node, parameter: str, value: tuple, start) -> str:
    if len(set(map(repr, value))) == 1:
        return scope.static(value[0])
    for field in scope.analysis.plan.fields:
        if as_ir(field.value) == value:
            return f"{scope.field(field.source)}[{_index(scope, start)}]"
    period = _period(value)
    if period:
        return _periodic(scope, value[:period], start)
    if len(set(map(repr, value[1:]))) == 1:
        return f"{scope.static(value[0])} if i == {scope.static(start)} else {scope.static(value[1])}"
    if len(set(map(repr, value[:-1]))) == 1:
        last = Expr(f"{start} + {node.attrs['count']} - 1").substitute({})
        return f"{scope.static(value[-1])} if i == {scope.static(last)} else {scope.static(value[0])}"
    message = f"{parameter} of %{node.name} has a value per layer and follows no pattern: {value}"
    raise fail("layer-values", message, hint="give it a field whose value is the list")


def _period(value: tuple) -> int:
    """The length of the pattern that `value` repeats, 0 where it repeats none."""
    for period in range(2, (len(value) + 1) // 2 + 1):
        if all(repr(item) == repr(value[i % period]) for i, item in enumerate(value)):
            return period
    return 2 if len(value) == 2 else 0


def _periodic(scope: Scope, pattern: tuple, start) -> str:
    period = len(pattern)
    if isinstance(start, int):
        pattern, index = tuple(pattern[(i - start) % period] for i in range(period)), "i"
    else:
        index = f"({_index(scope, start)})"
    if period == 2:
        return f"{scope.static(pattern[0])} if {index} % 2 == 0 else {scope.static(pattern[1])}"
    return f"{scope.static(pattern)}[{index} % {period}]"


def _index(scope: Scope, start) -> str:
    return "i" if start == 0 else f"i - {scope.static(start)}"
