"""Two programs of one architecture at different sizes, walked in lockstep: one program over config fields."""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from hf2khc.ir.expr import Expr, names_of
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.types import Tensor, Type


@dataclass(frozen=True)
class Generalised:
    """A program whose attributes are expressions over config fields.

    Args:
        program: the real program, generalised; equal to it in every number at the real config.
        reasons: why the program does not follow the config in some place; empty where it does everywhere.
    """

    program: Program
    reasons: tuple[str, ...] = ()


def generalise(real: Program, twin: Program, fields: Mapping[str, tuple[object, object]]) -> Generalised:
    """The real program with each number that differs in the twin as the smallest expression that gives both.

    Args:
        real: the program at the real config.
        twin: the program of the same model class at another config.
        fields: dotted config field (`config.hidden_size`) to its value in the real config and in the twin's.
    """
    difference = _structural_difference(real, twin)
    if difference:
        return Generalised(real, (difference,))
    search = Search(fields)
    graphs = {}
    for (name, a), b in zip(real.graphs.items(), twin.graphs.values(), strict=True):
        nodes = [_node(x, y, search, name) for x, y in zip(a, b, strict=True)]
        graphs[name] = a.replaced(nodes)
    return Generalised(replace(real, graphs=graphs), tuple(dict.fromkeys(search.unexplained)))


def _structural_difference(real: Program, twin: Program) -> str:
    if list(real.graphs) != list(twin.graphs):
        return f"the twin has other modules: {_first_difference(list(real.graphs), list(twin.graphs))}"
    for name, a in real.graphs.items():
        b = twin.graphs[name]
        shapes = [[_shape(node, graph) for node in graph] for graph in (a, b)]
        if shapes[0] != shapes[1]:
            return f"the twin computes {name} another way: {_first_difference(*shapes)}"
    return ""


def _first_difference(a: list, b: list) -> str:
    for x, y in itertools.zip_longest(a, b):
        if x != y:
            return f"{x} against {y}"
    return ""


def _shape(node: Node, graph: Graph) -> tuple:
    order = {name: i for i, name in enumerate(graph.nodes)}
    return node.op, tuple(o if o is None else order[o] for o in node.operands), tuple(node.attrs)


def _node(real: Node, twin: Node, search: "Search", graph: str) -> Node:
    place = f"{graph}.{real.name}"
    attrs = {key: search.value(value, twin.attrs[key], f"{place}.{key}") for key, value in real.attrs.items()}
    return replace(real, attrs=attrs, type=_type(real.type, twin.type, search, place))


def _type(real: Type, twin: Type, search: "Search", place: str) -> Type:
    if isinstance(real, tuple):
        assert isinstance(twin, tuple)
        return tuple(_type(a, b, search, place) for a, b in zip(real, twin, strict=True))  # type: ignore[misc]
    assert isinstance(twin, Tensor)
    return Tensor(real.dtype, search.value(real.shape, twin.shape, place))


@dataclass
class Search:
    """Finds expressions; what it cannot explain keeps its real value and is listed."""

    fields: Mapping[str, tuple[object, object]]
    found: dict[tuple, object] = field(default_factory=dict)
    unexplained: list[str] = field(default_factory=list)

    def value(self, a, b, place: str):
        """The common generalisation of a value of the real program and its counterpart."""
        if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
            return tuple(self.value(x, y, place) for x, y in zip(a, b, strict=True))
        if _equal(a, b):
            return a
        key = (str(a), str(b))
        if key not in self.found:
            self.found[key] = self._search(a, b)
        if self.found[key] is None:
            self.unexplained.append(f"{place}: {a} (twin: {b}) follows from no config field")
            return a
        return self.found[key]

    def _search(self, a, b):
        if isinstance(a, Expr) or isinstance(b, Expr):
            return self._symbolic(a, b)
        if isinstance(a, bool) or not isinstance(a, int | float) or not isinstance(b, int | float):
            return None
        return next(self._candidates(a, b), None)

    def _symbolic(self, a, b):
        """An expression over sizes whose numbers differ: the first with numbers replaced by what explains them."""
        text_a, text_b = str(a), str(b)
        numbers_a, numbers_b = _numbers(text_a), _numbers(text_b)
        if len(numbers_a) != len(numbers_b) or _blank(text_a) != _blank(text_b):
            return None
        parts = [x if x == y else self._search(x, y) for x, y in zip(numbers_a, numbers_b, strict=True)]
        if None in parts:
            return None
        pieces = _NUMBER.split(text_a)
        text = pieces[0] + "".join(f"({part}){piece}" for part, piece in zip(parts, pieces[1:], strict=True))
        return Expr.of(text)

    def _agrees(self, text: str, a, b) -> bool:
        expr = Expr.of(text)
        try:
            values = [expr.evaluate({k: v[i] for k, v in self.fields.items()}) for i in (0, 1)]
        except (ZeroDivisionError, ValueError, TypeError, OverflowError):
            return False
        return all(_close(x, y) for x, y in zip(values, (a, b), strict=True))

    def _candidates(self, a, b) -> Iterator[Expr]:
        """Expressions in order of size; a field that fits alone is always preferred."""
        for text in itertools.chain(self._unary(isinstance(a, float)), self._binary(a, b), self._ternary(a, b)):
            if self._agrees(text, a, b):
                yield Expr.of(text)

    def _numeric(self) -> list[str]:
        return [
            k for k, v in self.fields.items() if all(isinstance(x, int | float) and not isinstance(x, bool) for x in v)
        ]

    def _unary(self, real: bool) -> Iterable[str]:
        names = self._numeric()
        yield from names
        for name in names:
            if real:
                yield from (f"{name} ** -0.5", f"sqrt({name})", f"1.0 / {name}", f"-{name}", f"1 - {name}")
            yield from (f"-{name}", f"{name} - 1", f"{name} + 1", f"{name} + 2", f"{name} // 2", f"-({name} // 2)")
            yield from (f"{n} * {name}" for n in (2, 3, 4, 6, 8))
            yield from (f"{name} // {n}" for n in (4, 8))

    def _binary(self, a, b) -> Iterable[str]:
        ints = [k for k in self._numeric() if all(isinstance(x, int) and x > 0 for x in self.fields[k])]
        for x, y in itertools.permutations(ints, 2):
            yield f"{x} // {y}"
            yield f"-({x} // {y})"
            if isinstance(a, float):
                yield f"({x} // {y}) ** -0.5"
            else:
                yield from (
                    f"{x} // {y} // 2",
                    f"(({x} // {y}) + 1) // 2",
                    f"({x} // {y}) ** 2",
                    f"({x} // {y}) ** 2 + 1",
                )
        for x, y in itertools.combinations(ints, 2):
            yield from (f"{x} * {y}", f"{x} + {y}")
        for x, y in itertools.permutations(ints, 2):
            yield from (f"2 * {x} * {y}", f"{x} - {y}", f"{x} + 2 * {y}", f"{x} * {y} // 2")

    def _ternary(self, a, b) -> Iterable[str]:
        ints = [k for k in self._numeric() if all(isinstance(x, int) and x > 0 for x in self.fields[k])]
        if len(ints) > 40:
            return
        for x, y, z in itertools.permutations(ints, 3):
            yield f"{x} * {y} // {z}"
            yield f"({x} + {y}) * {z}"
            yield f"({x} + 2 * {y}) * {z}"


_NUMBER = re.compile(r"(?<![\w.])\d+(?![\w.])")


def _numbers(text: str) -> list[int]:
    return [int(n) for n in _NUMBER.findall(text)]


def _blank(text: str) -> str:
    return _NUMBER.sub("#", text)


def _equal(a, b) -> bool:
    return type(a) is type(b) and a == b


def _close(x, y) -> bool:
    if isinstance(x, int) and isinstance(y, int):
        return x == y
    return math.isclose(x, y, rel_tol=1e-12, abs_tol=0.0) and (isinstance(y, float) or float(x).is_integer())


def config_names(program: Program) -> list[str]:
    """Config fields that occur in a program, in order of first use."""
    names: dict[str, None] = {}
    for graph in program.callees_first():
        for node in graph:
            types = node.type if isinstance(node.type, tuple) else (node.type,)
            values = [*node.attrs.values(), *(t.shape for t in types)]
            names.update(dict.fromkeys(n for v in values for n in sorted(names_of(v)) if n.startswith("config.")))
    return list(names)
