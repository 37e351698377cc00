"""Programs of one architecture at several sizes, walked in lockstep: one program over config fields."""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hf2khc.ir.expr import Expr, entry_of
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.types import Tensor, Type

# Above this many integer fields, expressions of three fields are not tried: there would be too many.
MOST_FIELDS = 40


@dataclass(frozen=True)
class Generalised:
    """A program whose attributes are expressions over config fields.

    Args:
        program: the real program, generalised; equal to it in every number at the real config.
        reasons: why the program does not follow the config in some place; empty where it does everywhere.
    """

    program: Program
    reasons: tuple[str, ...] = ()


def generalise(real: Program, twins: Sequence[Program], fields: Mapping[str, tuple[Any, ...]]) -> Generalised:
    """The real program with each number that differs in a twin as the smallest expression that gives all of them.

    Args:
        real: the program at the real config.
        twins: programs of the same model class at other configs. One number that happens to fit in one twin is
            unlikely to fit in two.
        fields: dotted config field (`config.hidden_size`) to its values in the real config and in each twin's.
    """
    differences = [_structural_difference(real, twin) for twin in twins]
    if not twins or any(differences):
        return Generalised(real, tuple(filter(None, differences)))
    search = Search(fields)
    graphs = {}
    for (name, graph), *others in zip(real.graphs.items(), *(twin.graphs.values() for twin in twins), strict=True):
        nodes = [_node(nodes, search, name, name == real.entry) for nodes in zip(graph, *others, strict=True)]
        graphs[name] = graph.replaced(nodes)
    return Generalised(replace(real, graphs=graphs), tuple(dict.fromkeys(search.unexplained)))


def _structural_difference(real: Program, twin: Program) -> str:
    if list(real.graphs) != list(twin.graphs):
        return f"the twin has other modules: {_first_difference(list(real.graphs), list(twin.graphs))}"
    for name, graph in real.graphs.items():
        shapes = [_shape(graph), _shape(twin.graphs[name])]
        if shapes[0] != shapes[1]:
            return f"the twin computes {name} another way: {_first_difference(*shapes)}"
    return ""


def _first_difference(a: list, b: list) -> str:
    return next((f"{x} against {y}" for x, y in itertools.zip_longest(a, b) if x != y), "")


def _shape(graph: Graph) -> list[tuple]:
    order = {name: i for i, name in enumerate(graph.nodes)}
    return [
        (node.op, tuple(o if o is None else order.get(o) for o in node.operands), tuple(node.attrs)) for node in graph
    ]


def _node(nodes: tuple[Node, ...], search: "Search", graph: str, is_entry: bool) -> Node:
    real = nodes[0]
    place = f"{graph}.{real.name}"
    attrs = {key: search.value(tuple(n.attrs[key] for n in nodes), f"{place}.{key}") for key in real.attrs}
    # What is computed has the size it has: nothing is printed from it alone, and the proof at another config sees it.
    typed = place if real.op in ("param", "const") or (real.op == "input" and is_entry) else ""
    return replace(real, attrs=attrs, type=_type(tuple(n.type for n in nodes), search, typed))


def _type(types: tuple[Type, ...], search: "Search", place: str) -> Type:
    if isinstance(types[0], tuple):
        return tuple(_type(parts, search, place) for parts in zip(*types, strict=True))  # type: ignore[arg-type, misc]
    shapes = tuple(t.shape for t in types if isinstance(t, Tensor))
    return Tensor(types[0].dtype, search.value(shapes, place))


@dataclass
class Search:
    """Finds expressions; what it cannot explain keeps its real value and is listed."""

    fields: Mapping[str, tuple[Any, ...]]
    found: dict[tuple[str, ...], Any] = field(default_factory=dict)
    unexplained: list[str] = field(default_factory=list)

    def value(self, values: tuple, place: str) -> Any:
        """The common generalisation of a value of the real program and its counterparts in the twins.

        Args:
            values: the real one and each twin's.
            place: said of a value that nothing explains; empty for one that may stay so.
        """
        if all(isinstance(v, tuple) and len(v) == len(values[0]) for v in values):
            return tuple(self.value(parts, place) for parts in zip(*values, strict=True))
        if all(type(v) is type(values[0]) and v == values[0] for v in values):
            return values[0]
        key = tuple(map(str, values))
        if key not in self.found:
            self.found[key] = self._search(values)
        if self.found[key] is None and not place:
            return values[0]
        if self.found[key] is None:
            others = ", ".join(key[1:])
            self.unexplained.append(f"{place}: {key[0]} (elsewhere {others}) follows from no config field")
            return values[0]
        return self.found[key]

    def _search(self, values: tuple) -> Any:
        if any(isinstance(v, Expr) for v in values):
            return self._symbolic(values)
        if any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
            return None
        return next(self._candidates(values), None)

    def _symbolic(self, values: tuple) -> Expr | None:
        """An expression over sizes whose numbers differ: the first with numbers replaced by what explains them."""
        texts = list(map(str, values))
        if len({_NUMBER.sub("#", text) for text in texts}) != 1:
            return None
        columns = zip(*([int(n) for n in _NUMBER.findall(text)] for text in texts), strict=True)
        parts = [column[0] if len(set(column)) == 1 else self._search(column) for column in columns]
        if None in parts:
            return None
        pieces = _NUMBER.split(texts[0])
        return Expr.of(pieces[0] + "".join(f"({part}){piece}" for part, piece in zip(parts, pieces[1:], strict=True)))

    def _candidates(self, values: tuple) -> Iterator[Expr]:
        """Expressions in order of size; a field that fits alone is always preferred."""
        real = isinstance(values[0], float)
        texts = itertools.chain(
            _unary(self._numeric(), real), _binary(self._positive(), real), self._ternary(), self._multiples(values)
        )
        return (Expr.of(text) for text in texts if self._agrees(text, values))

    def _multiples(self, values: tuple) -> Iterator[str]:
        """A field times a number that no field holds: heads that are as wide at every config.

        Two points lie on some line for every other field: each config must have its own.
        """
        for name in self._positive() if len(set(values)) == len(values) else ():
            factor, rest = divmod(values[0], self.fields[name][0])
            if factor > 1 and not rest and isinstance(factor, int):
                yield f"{factor} * {name}"

    def _agrees(self, text: str, values: tuple) -> bool:
        expr = Expr(text)
        try:
            return all(
                _close(expr.evaluate({k: v[i] for k, v in self.fields.items() if k in expr.names}), value)
                for i, value in enumerate(values)
            )
        except (ZeroDivisionError, ValueError, TypeError, OverflowError):
            return False

    def _numeric(self) -> list[str]:
        return [
            name
            for name, values in self.fields.items()
            if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        ]

    def _positive(self) -> list[str]:
        names = (name for name in self._numeric() if all(isinstance(v, int) and v > 0 for v in self.fields[name]))
        # Fields that are the same everywhere explain no difference.
        return [name for name in names if len(set(self.fields[name])) > 1]

    def _ternary(self) -> Iterable[str]:
        names = [name for name in self._positive() if entry_of(name) is None]
        if len(names) <= MOST_FIELDS:
            for x, y, z in itertools.permutations(names, 3):
                yield from (f"{x} * {y} // {z}", f"({x} + {y}) * {z}", f"({x} + 2 * {y}) * {z}")
                # Patches of an image, and tokens that a field counts before them.
                yield from (f"({x} // {y}) ** 2 + {z}", f"({x} // {y}) ** 2 + {z} + 1")
                yield f"{x} // {y} + 2 * {z}"


def _unary(names: list[str], real: bool) -> Iterable[str]:
    yield from names
    for name in names:
        if real:
            yield from (f"{name} ** -0.5", f"sqrt({name})", f"1.0 / {name}", f"-{name}", f"1 - {name}")
            # What scales the angles of YaRN (Peng et al., 2023).
            yield f"0.1 * log({name}) + 1"
        yield from (f"-{name}", f"{name} - 1", f"{name} + 1", f"{name} + 2")
        yield from (f"{name} // 2", f"{name} // 2 - 1", f"-({name} // 2)")
        # What is left when a half, and a half of a half, is taken away: an odd number tells it from the half.
        yield from (f"{name} - {name} // 2", f"{name} // 2 - {name} // 4")
        yield from (f"{n} * {name}" for n in (2, 3, 4, 6, 8))
        yield from (f"{name} // {n}" for n in (4, 8))


def _binary(names: list[str], real: bool) -> Iterable[str]:
    pairs = [pair for pair in itertools.permutations(names, 2) if _belong(*pair)]
    for x, y in pairs:
        yield from (f"{x} // {y}", f"-({x} // {y})")
    for x, y in itertools.combinations(names, 2):
        if _belong(x, y):
            yield from (f"{x} * {y}", f"{x} + {y}")
    for x, y in pairs:
        if real:
            # Widths of heads, and the logarithmic buckets of relative positions.
            yield from (f"({x} // {y}) ** -0.5", f"sqrt({x} // {y})")
            yield from (f"log({x} / ({y} // 2))", f"log({x} / ({y} // 4))", f"log({x} / {y})")
        else:
            yield from (f"{x} // {y} // 2", f"({x} // {y} + 1) // 2", f"({x} // {y}) ** 2")
            # Patches of an image, with one token or two before them.
            yield from (f"({x} // {y}) ** 2 + 1", f"({x} // {y}) ** 2 + 2")
    for x, y in pairs:
        yield from (f"2 * {x} * {y}", f"{x} - {y}", f"{x} + 2 * {y}", f"{x} * {y} // 2")
        # The one head of keys, and of keys and values, that stands behind all heads of queries.
        yield from (f"{x} + {x} // {y}", f"{x} + 2 * ({x} // {y})")


def _belong(x: str, y: str) -> bool:
    """Whether two fields may be parts of one expression: entries of lists are when they are of one stage."""
    a, b = entry_of(x), entry_of(y)
    return a is None or b is None or a[1] == b[1]


_NUMBER = re.compile(r"(?<![\w.])\d+(?![\w.])")


def _close(x: Any, y: Any) -> bool:
    if isinstance(x, int) and isinstance(y, int):
        return x == y
    return math.isclose(x, y, rel_tol=1e-12, abs_tol=0.0) and (isinstance(y, float) or float(x).is_integer())
