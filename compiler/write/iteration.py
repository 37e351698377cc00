"""What changes from one iteration of a loop to the next: graph parameters, and the kind of layer."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from hf2khc.ir.expr import Expr, evaluate
from hf2khc.ir.graph import Node, Program, callees
from hf2khc.write.plan import Field, Plan, as_ir
from hf2khc.write.scope import Scope


def iteration_text(scope: Scope, node: Node, parameter: str) -> str:
    """The argument for a parameter of the graph that a `call` or `loop` runs; in a loop `i` may occur in it."""
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
    kinds = kind_list(scope.analysis.plan.fields, value, start)
    if kinds is not None:
        return _by_kind(scope, kinds, value, start)
    period = _period(value)
    if period:
        return _periodic(scope, value[:period], start)
    if len(set(map(repr, value[1:]))) == 1:
        return f"{scope.static(value[0])} if i == {scope.static(start)} else {scope.static(value[1])}"
    if len(set(map(repr, value[:-1]))) == 1:
        last = Expr(f"{start} + {node.attrs['count']} - 1").substitute({})
        return f"{scope.static(value[-1])} if i == {scope.static(last)} else {scope.static(value[0])}"
    return f"{scope.static(value)}[{_index(scope, start)}]"


def kind_list(fields: Iterable[Field], values: Sequence, start) -> Field | None:
    """The first list of the config that tells one value per layer from another: layers of equal entries are alike.

    Args:
        fields: of the plan.
        values: one per iteration.
        start: number of the first layer.
    """
    return next((field for field in fields if _tells(field.value, values, start)), None)


def kind_lists(program: Program, fields: Sequence[Field]) -> list[str]:
    """The sources of those of `fields` that say of which kind each layer is, for the loops that need one."""
    found: dict[str, None] = {}
    for node in (node for graph in program.graphs.values() for node in graph.of("loop")):
        series = [value for value in node.attrs.values() if isinstance(value, tuple)]
        kinds = [kind_list(fields, value, node.attrs["start"]) for value in series]
        found |= dict.fromkeys(field.source for field in kinds if field is not None)
    return list(found)


def _tells(entries, values: Sequence, start) -> bool:
    if not isinstance(entries, list) or not isinstance(start, int) or len(entries) != start + len(values):
        return False
    meaning = {repr(entry): repr(value) for entry, value in zip(entries[start:], values, strict=True)}
    right = all(meaning[repr(e)] == repr(v) for e, v in zip(entries[start:], values, strict=True))
    return right and 1 < len(meaning) < len(values) and len(set(meaning.values())) > 1


def _entries(kinds: Field, start: int) -> list:
    assert isinstance(kinds.value, list)
    return kinds.value[start:]


def _by_kind(scope: Scope, kinds: Field, values: Sequence, start: int) -> str:
    meaning = dict(zip(_entries(kinds, start), values, strict=True))
    entry = f"{scope.field(kinds.source)}[i]"
    if len(meaning) == 2:
        (first, one), (_, other) = meaning.items()
        return f"{scope.static(one)} if {entry} == {scope.static(first)} else {scope.static(other)}"
    table = ", ".join(f"{scope.static(key)}: {scope.static(value)}" for key, value in meaning.items())
    return f"{{{table}}}[{entry}]"


def kind_conditions(scope: Scope, node: Node) -> Iterator[tuple[str, str]]:
    """For a loop over layers of several kinds: the condition of each kind, none for the last, and its graph."""
    values = node.attrs["graph"]
    start = node.attrs.get("start", 0)
    *tested, last = callees(node)
    kinds = kind_list(scope.analysis.plan.fields, values, start)
    for callee in tested:
        yield _condition(scope, kinds, [value == callee for value in values], start), callee
    yield "", last


def series_at(plan: Plan, node: Node, series: tuple, values: Mapping[str, object]) -> tuple:
    """One value per iteration at other values of the fields: what the printed code chooses there.

    Args:
        plan: with the values that the series belongs to.
        node: a loop.
        series: what changes from one iteration to the next: its graph, or a parameter.
        values: by source.
    """
    start = node.attrs.get("start", 0)
    count = int(str(evaluate(node.attrs["count"], values)))
    kinds = kind_list(plan.fields, series, start)
    if kinds is not None:
        meaning = dict(zip(_entries(kinds, int(str(start))), series, strict=True))
        entries = values[kinds.source]
        assert isinstance(entries, list | tuple)
        return tuple(meaning.get(entry, series[-1]) for entry in entries[int(str(start)) :])
    period = _period(series)
    if period and len(series) > period:
        return tuple(series[i % period] for i in range(count))
    return tuple(series[min(i, len(series) - 1)] for i in range(count))


def _condition(scope: Scope, kinds: Field | None, flags: Sequence[bool], start) -> str:
    if kinds is not None:
        entries = dict.fromkeys(e for e, flag in zip(_entries(kinds, start), flags, strict=True) if flag)
        return _one_of(f"{scope.field(kinds.source)}[i]", list(map(scope.static, entries)))
    index, period = _index(scope, start), _period(tuple(flags))
    if period and len(flags) > period:
        return _one_of(f"{index if index == 'i' else f'({index})'} % {period}", _places(flags[:period]))
    return _one_of(index, _places(flags))


def _places(flags: Sequence[bool]) -> list[str]:
    return [str(i) for i, flag in enumerate(flags) if flag]


def _one_of(text: str, options: Sequence[str]) -> str:
    return f"{text} == {options[0]}" if len(options) == 1 else f"{text} in ({', '.join(options)})"


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
