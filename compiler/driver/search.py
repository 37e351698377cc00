"""The expression over config fields that a number of several programs of one architecture stands for."""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hf2khc.ir.expr import Expr, entry_of

# Above this many integer fields, expressions of three fields are not tried: there would be too many.
MOST_FIELDS = 40


@dataclass
class Search:
    """Finds expressions; what it cannot explain keeps its real value and is listed."""

    fields: Mapping[str, tuple[Any, ...]]
    found: dict[tuple[str, ...], Any] = field(default_factory=dict)
    parts: dict[tuple[int, ...], Expr] = field(default_factory=dict)
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
        found = self.found[key]
        if all(type(v) is int for v in values):
            if found is None:
                found = next(self._sums(values), None)
            else:
                self.parts[values] = found
        if found is not None:
            return found
        if place:
            others = ", ".join(key[1:])
            self.unexplained.append(f"{place}: {key[0]} (elsewhere {others}) follows from no config field")
        return values[0]

    def _sums(self, values: tuple[int, ...]) -> Iterator[Expr]:
        """Sums of what was found beside it, each once or twice: queries, keys and values behind one another."""
        terms: dict[tuple[int, ...], str] = {}
        for part, expr in self.parts.items():
            terms.setdefault(part, f"({expr})")
            terms.setdefault(tuple(2 * v for v in part), f"2 * ({expr})")
        for count in (1, 2):
            for chosen in itertools.combinations(terms, count):
                rest = tuple(v - sum(others) for v, *others in zip(values, *chosen, strict=True))
                if rest in terms:
                    yield Expr.of(" + ".join(terms[term] for term in (*chosen, rest)))

    def _search(self, values: tuple) -> Any:
        if any(isinstance(v, Expr) for v in values):
            return self._symbolic(values)
        if any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
            return None
        found = next(self._candidates(values), None)
        if found is None and all(value < 0 for value in values):
            found = next(self._candidates(tuple(-value for value in values)), None)
            return None if found is None else Expr.of(f"-({found})")
        return found

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
            _unary(self._numeric(), real),
            _binary(self._positive(), real),
            self._parts_of(),
            self._ternary(),
            self._multiples(values),
            self._proportional(values) if real else (),
        )
        return (Expr.of(text) for text in texts if text and self._agrees(text, values))

    def _multiples(self, values: tuple) -> Iterator[str]:
        """A field and a number that no field holds: heads that are as wide at every config, tokens before a block.

        Two points lie on some line for every other field: each config must have its own.
        """
        for name in self._positive() if len(set(values)) == len(values) else ():
            factor, rest = divmod(values[0], self.fields[name][0])
            if factor > 1 and not rest and isinstance(factor, int):
                yield f"{factor} * {name}"
            if isinstance(values[0], int):
                yield f"{name} {values[0] - self.fields[name][0]:+d}"

    def _proportional(self, values: tuple) -> Iterator[str]:
        """A number over a size: the steps of sinusoids, log(10000) / (size / 2 - 1) (Vaswani et al., 2017)."""
        for name in self._positive() if len(set(values)) == len(values) else ():
            for size in (name, f"({name} // 2)", f"({name} // 2 - 1)"):
                first = Expr(size).evaluate({name: self.fields[name][0]})
                yield f"log({round(math.exp(values[0] * first), 6)}) / {size}" if values[0] * first < 20 else ""

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

    def _parts_of(self) -> Iterator[str]:
        """A fraction of a size: what is rotated of a head."""
        names = self._positive()
        for part in self._fractions():
            yield from (f"int({name} * {part})" for name in names)
            yield from (f"int({x} // {y} * {part})" for x, y in itertools.permutations(names, 2) if _belong(x, y))

    def _fractions(self) -> list[str]:
        names = (name for name in self._numeric() if all(0 < v <= 1 for v in self.fields[name]))
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
