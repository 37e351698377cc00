"""The expression over config fields that a number of several programs of one architecture stands for."""

import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hf2khc.capture.twin_fields import LARGE
from hf2khc.driver import forms
from hf2khc.driver.forms import Form, agrees, close
from hf2khc.driver.strides import is_stride, sides_of
from hf2khc.ir.expr import Expr, compiled, entry_of

# Above this many integer fields, expressions of three fields are not tried: there would be too many.
MOST_FIELDS = 40
# Of attention, at any width of heads.
LEAST_SCALE = 1e-4
# What a scale is of a size, and the power that gives the size back; no scale is both of a size above 1.
ROOTS = (("({}) ** -0.5", -2), ("sqrt({})", 2))
# How many times as wide a layer may be as another one.
MOST_RATIO = 16
# Decimals of a number in a model's own code.
DIGITS = 9
# Before or behind the patches of an image, where no field counts them.
MOST_TOKENS = 16


@dataclass
class Search:
    """Finds expressions; what it cannot explain keeps its real value and is listed."""

    fields: Mapping[str, tuple[Any, ...]]
    found: dict[tuple[str, ...], Any] = field(default_factory=dict)
    parts: dict[tuple[int, ...], Expr] = field(default_factory=dict)
    # What was put together of parts in any graph: what another one is handed has the same size.
    joined: dict[tuple[int, ...], Expr] = field(default_factory=dict)
    unexplained: list[str] = field(default_factory=list)
    # Fields that count layers: small numbers, near which many a size is.
    layers: Collection[str] = ()

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
        found = self._known(values)
        if all(type(v) is int for v in values):
            if found is None:
                ways = (self._sums(values), self._longer(values), self._products(values), self._rests(values),
                        self._differences(values))  # fmt: skip
                found = next(itertools.chain.from_iterable(ways), self.joined.get(values))
                if found is not None:
                    self.joined[values] = found
            if found is not None:
                self.parts.setdefault(values, found)
        if found is not None:
            return found
        if place:
            others = ", ".join(map(str, values[1:]))
            self.unexplained.append(f"{place}: {values[0]} (elsewhere {others}) follows from no config field")
        return values[0]

    def _known(self, values: tuple) -> Any:
        """What a search finds; of the same numbers once."""
        key = tuple(map(str, values))
        if key not in self.found:
            self.found[key] = self._search(values)
        return self.found[key]

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

    def _longer(self, values: tuple[int, ...]) -> Iterator[Expr]:
        """Something found beside it and tokens that a field counts, or a few: patches with those that are learned.

        A few less, too: windows without the last one.
        """
        counted = [form.over((name,)) for form in forms.TOKENS for name in self._positive()]
        for part, expr in self.parts.items():
            rest = tuple(v - p for v, p in zip(values, part, strict=True))
            if len(set(part)) == len(values) and set(rest) == {rest[0]} and -MOST_TOKENS <= rest[0] < 0:
                yield Expr.of(f"({expr}) - {-rest[0]}")
            if len(set(part)) == 1 or min(rest) < 1:
                continue
            few = (str(rest[0]),) if set(rest) == {rest[0]} and rest[0] <= MOST_TOKENS else ()
            yield from (Expr.of(f"({expr}) + {n}") for n in (*counted, *few) if agrees(n, self.fields, rest))

    def _products(self, values: tuple[int, ...]) -> Iterator[Expr]:
        """Something found beside it times something that is found: the pixels of all channels in one row."""
        for part, expr in list(self.parts.items()):
            if min(part) > 1 and not any(v % p for v, p in zip(values, part, strict=True)):
                rest = self._known(tuple(v // p for v, p in zip(values, part, strict=True)))
                if rest is not None:
                    yield Expr.of(f"({rest}) * ({expr})")

    def _rests(self, values: tuple[int, ...]) -> Iterator[Expr]:
        """What is left of a width that is the same everywhere: heads that are padded to it."""
        for part, expr in self.parts.items():
            wholes = {v + p for v, p in zip(values, part, strict=True)}
            if len(wholes) == 1 and len(set(part)) == len(part) and min(*values, *part) > 0:
                yield Expr.of(f"{wholes.pop()} - ({expr})")

    def _differences(self, values: tuple[int, ...]) -> Iterator[Expr]:
        """What one thing found beside it leaves of another: a grid without its last window."""
        for part, expr in self.parts.items():
            whole = tuple(v + p for v, p in zip(values, part, strict=True))
            if whole in self.parts and len(set(part)) > 1 and min(*values, *part) > 0:
                yield Expr.of(f"{self.parts[whole]} - ({expr})")

    def _search(self, values: tuple) -> Any:
        if any(isinstance(v, Expr) for v in values):
            return self._symbolic(values)
        if any(isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v) for v in values):
            return None
        found = next(self._candidates(values), None)
        if found is None and all(value < 0 for value in values):
            found = next(self._candidates(tuple(-value for value in values)), None)
            return None if found is None else Expr.of(f"-({found})")
        if found is None and all(isinstance(v, int) for v in values):
            return next(self._squares(values), None)
        if found is None and all(isinstance(v, float) for v in values):
            ways = (self._halves(values), self._roots(values), self._stretched(values))
            return next(itertools.chain.from_iterable(ways), None)
        return found

    def _squares(self, values: tuple[int, ...]) -> Iterator[Expr]:
        """The square of something, another one at each config: the windows that an image is cut into."""
        if min(values) > 1 and len(set(values)) == len(values):
            sides = tuple(map(math.isqrt, values))
            if all(side**2 == v for side, v in zip(sides, values, strict=True)):
                found = self.parts.get(sides) or self._known(sides)
                if found is not None:
                    yield Expr.of(f"({found}) ** 2")

    def _halves(self, values: tuple[float, ...]) -> Iterator[Expr]:
        """Half of a size, or its last place, as a number that is not whole: pixels of a grid that is sampled."""
        for form, wholes in (("({}) / 2", [2 * v for v in values]), ("({}) - 1.0", [v + 1 for v in values])):
            if all(whole.is_integer() and whole > 1 for whole in wholes) and len(set(wholes)) == len(wholes):
                found = next(self._candidates(tuple(map(int, wholes))), None)
                if found is not None:
                    yield Expr.of(form.format(found))

    def _roots(self, values: tuple[float, ...]) -> Iterator[Expr]:
        """The root of a size, or one over it: scores are divided by that of the size of a head."""
        usual = all(LEAST_SCALE < v < 1 / LEAST_SCALE for v in values)
        for form, power in ROOTS if usual else ():
            squares = [v**power for v in values]
            wholes = tuple(map(round, squares))
            if min(wholes) > 1 and all(close(float(n), square) for n, square in zip(wholes, squares, strict=True)):
                found = self.parts.get(wholes) or self._known(wholes)
                if found is not None:
                    yield Expr.of(form.format(found))

    def _stretched(self, values: tuple[float, ...]) -> Iterator[Expr]:
        """A scale of attention times the square of that of YaRN (Peng et al., 2023), as DeepSeek has it."""
        names = [name for name in self._numeric() if len(set(self.fields[name])) > 1 and min(self.fields[name]) > 0]
        alone, pairs = ([chosen] for chosen in names), itertools.permutations(names, 2)
        for chosen in itertools.chain(alone, pairs):
            text = forms.STRETCHED[len(chosen) - 1].over(chosen)
            used, function = compiled(text)
            factors = [function(*(self.fields[name][place] for name in used)) for place in range(len(values))]
            if min(factors) > 0:
                rest = tuple(v / factor for v, factor in zip(values, factors, strict=True))
                yield from (Expr.of(f"({found}) * {text}") for found in self._roots(rest))

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
        """Expressions in order of size, those without a number of layers first; a field alone is always preferred."""
        counting = []
        for found in self._expressions(values):
            if found.names.isdisjoint(self.layers):
                yield found
            else:
                counting.append(found)
        yield from counting

    def _expressions(self, values: tuple) -> Iterator[Expr]:
        real = isinstance(values[0], float)
        known = (
            form.over(names)
            for choices, forms in self._forms(real)
            for names in choices
            for columns in [{letter: self.fields[name] for letter, name in zip("xyz", names, strict=False)}]
            for form in forms
            if agrees(form.text, columns, values)
        )
        others = (
            text
            for texts in (
                self._multiples(values),
                self._strided(values),
                self._scales(values) if real else (),
                self._proportional(values) if real else (),
            )
            for text in texts
            if agrees(text, self.fields, values)
        )
        return map(Expr.of, itertools.chain(known, others))

    def _forms(self, real: bool) -> Iterator[tuple[Iterable[tuple[str, ...]], tuple[Form, ...]]]:
        """Tuples of fields, and the forms they are put into."""
        ones = [(name,) for name in self._numeric()]
        sizes, parts = self._positive(), self._ratios()
        pairs = [pair for pair in itertools.permutations(sizes, 2) if _belong(*pair)]
        yield ones, forms.BARE
        yield ones, (forms.REAL_OF_ONE if real else ()) + forms.OF_ONE
        yield pairs, forms.QUOTIENTS
        unordered = [pair for pair in itertools.combinations(sizes, 2) if _belong(*pair)]
        yield unordered, forms.SYMMETRIC + (forms.REAL_SYMMETRIC if real else ())
        yield pairs, forms.REAL_OF_TWO if real else forms.PATCHES
        yield pairs, forms.OF_TWO
        yield ones, forms.RARE_OF_ONE
        yield itertools.product(sizes, parts), forms.REAL_PART_OF_ONE if real else forms.PART_OF_ONE
        yield ((*pair, part) for part in parts for pair in pairs), forms.PART_OF_TWO
        # What could not change in a twin is divided by what could.
        yield itertools.product(self._fixed(), sizes), forms.QUOTIENTS
        alone = [name for name in sizes if entry_of(name) is None]
        if len(alone) <= MOST_FIELDS:
            yield itertools.permutations(alone, 3), forms.OF_THREE
            yield itertools.permutations(alone, 3), forms.OF_THREE_IN_TURN

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

    def _strided(self, values: tuple) -> Iterator[str]:
        """What convolutions with strides leave of a size: rows of an image, pixels, a token before them, a scale.

        Several rounded one after the other, all up or all down, are one that is.
        """
        for name, sizes in self._divided:
            for form, sides in sides_of(values, name, sizes):
                strides = range(max(2, sizes[0] // (sides[0] + 1)), -(-sizes[0] // max(1, sides[0] - 1)) + 1)
                # What divides without a rest is likelier than what is next to it.
                for stride in sorted(filter(is_stride, strides), key=lambda stride: sizes[0] % stride != 0):
                    yield form.format(f"{name} // {stride}")
                    yield form.format(f"({name} + {stride - 1}) // {stride}")

    @cached_property
    def _divided(self) -> list[tuple[str, tuple[int, ...]]]:
        """Sizes, and what one of them leaves of another: patches of an image, which windows divide again."""
        names = self._positive()
        found = [(name, self.fields[name]) for name in names]
        for x, y in itertools.permutations(names, 2) if len(names) <= MOST_FIELDS else ():
            sizes, rests = zip(*map(divmod, self.fields[x], self.fields[y]), strict=True)
            if not any(rests) and min(sizes) > 1 and _belong(x, y):
                found.append((f"{x} // {y}", sizes))
        return found

    def _scales(self, values: tuple) -> Iterator[str]:
        """The root of a whole part of a size, or one over it: heads of which no field tells how many they are."""
        for form, power in ROOTS if LEAST_SCALE < values[0] < 1 / LEAST_SCALE else ():
            for name in self._positive():
                heads, rest = divmod(self.fields[name][0], round(values[0] ** power) or math.inf)
                if heads > 1 and not rest:
                    yield form.format(f"{name} // {int(heads)}")

    def _proportional(self, values: tuple) -> Iterator[str]:
        """A number over a size, or over its root.

        The steps of sinusoids are log(10000) / (size / 2 - 1) (Vaswani et al., 2017).
        """
        for name in self._positive() if len(set(values)) == len(values) else ():
            for size in (name, f"({name} // 2)", f"({name} // 2 - 1)"):
                first = Expr(size).evaluate({name: self.fields[name][0]})
                if values[0] * first < 20:
                    yield f"log({round(math.exp(values[0] * first), 6)}) / {size}"
            yield f"{round(values[0] * self.fields[name][0] ** 0.5, DIGITS)} / sqrt({name})"
            if LEAST_SCALE < values[0] < 1 / LEAST_SCALE:
                yield f"sqrt({name} / {round(self.fields[name][0] / values[0] ** 2)})"

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

    def _fixed(self) -> list[str]:
        same = (name for name in self._numeric() if len(set(self.fields[name])) == 1)
        return [name for name in same if type(self.fields[name][0]) is int and self.fields[name][0] >= LARGE]

    def _ratios(self) -> list[str]:
        names = (
            name
            for name in self._numeric()
            if all(isinstance(v, float) and 0 < v <= MOST_RATIO for v in self.fields[name]) and "drop" not in name
        )  # no rate of dropout is a part of a size
        return [name for name in names if len(set(self.fields[name])) > 1]


def _belong(x: str, y: str) -> bool:
    """Whether two fields may be parts of one expression: entries of lists are when they are of one stage."""
    a, b = entry_of(x), entry_of(y)
    return a is None or b is None or a[1] == b[1]


_NUMBER = re.compile(r"(?<![\w.])\d+(?![\w.])")
