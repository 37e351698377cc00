"""Which sizes of a trace are free, from which size on and up to which.

torch asks for more than the ranges that it reports: what it could not settle while it traced stands in the program as
assertions over its symbols. A size at which one of them fails is one for which the program was not traced.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch.export import ExportedProgram
from torch.utils._sympy.printers import PythonPrinter

from hf2khc.capture.input_types import Input

SMALL = 66  # below it every size is tried: one more than the common lengths of a chunk
LARGE = (127, 128, 129, 255, 256, 257, 1009, 4099)
STEPS = 128
SHORTEST_LOOP = 3
# The smallest size that a trace of several stands for: one is a case of its own to torch, and tried in the proof.
SMALLEST = 2
_TORCH = os.path.dirname(torch.__file__)
Condition = tuple[str, Callable[[Mapping[str, int]], bool]]  # what it says, and whether it holds at given sizes
LONGEST_TEXT = 120
_STRICT = sympy.StrictGreaterThan | sympy.StrictLessThan


def symbol_names(program: ExportedProgram, spec: Iterable[Input]) -> dict[str, str]:
    """The name of each of torch's symbols that is the size of an input: `{"s43": "batch", "s70": "seq"}`."""
    return {
        str(size): symbol
        for symbol, size in _input_sizes(program, spec)
        if isinstance(size, torch.SymInt) and isinstance(size.node.expr, sympy.Symbol)
    }


def smallest_sizes(
    program: ExportedProgram, spec: Iterable[Input], sizes: Mapping[str, int], longest: Sequence[int] = (),
    rounds: int = 0,
) -> tuple[dict[str, int], dict[str, int], dict[str, str]]:  # fmt: skip
    """The smallest size of each symbol that is free, its largest one, and why each of the others is not.

    Args:
        program: of which the placeholders and the assertions count.
        spec: the inputs it was traced with.
        sizes: of the symbols in the trace.
        longest: numbers of positions for which the model was made: a length may have one of them as its largest.
        rounds: as many as there are in the trace of a loop; that there are so many is asked for that trace alone.

    Returns:
        The sizes from which on everything holds that torch asks for, those up to which it does where there is such an
        end, and a reason per symbol that has none.
    """
    spec = tuple(spec)
    fixed = set(_dependent(program, spec))
    conditions = list(_conditions(program, symbol_names(program, spec), rounds))
    found: dict[str, int] = {}
    largest: dict[str, int] = {}
    reasons: dict[str, str] = {}
    for symbol, size in sizes.items():
        if symbol in fixed:
            reasons[symbol] = "torch.export takes no other"
            continue
        limits = (None,) if symbol == "batch" else (None, *sorted(longest, reverse=True))
        ranges = [(*_least(symbol, sizes, limit, conditions), limit) for limit in limits if not limit or limit > size]
        least, _, limit = min(ranges, key=lambda found: found[0])
        if least <= size:
            found[symbol] = least
            largest |= {symbol: limit} if limit else {}
        else:
            reasons[symbol] = f"at other sizes the model takes another way, where not {ranges[0][1]}"
    return found, largest, reasons


def padding_edges(program: ExportedProgram, spec: Iterable[Input], smallest: Mapping[str, int]) -> dict[str, int]:
    """A size of each free symbol at which nothing is padded though the trace pads: what a proof has to try.

    Args:
        program: as for `smallest_sizes`.
        spec: the inputs it was traced with.
        smallest: the sizes from which on the symbols are free.
    """
    names = symbol_names(program, spec)
    found: dict[str, int] = {}
    asked = {condition.gts for condition in _asserted(program) if _is_strict(condition)}
    for padding in set(_paddings(program)) & asked:
        (own,) = map(str, padding.free_symbols)
        if own in names and names[own] in smallest:
            symbol = names[own]
            _, holds = _evaluated(sympy.Eq(padding, 0), {own: symbol})
            edge = next((size for size in range(smallest[symbol], LARGE[-1]) if holds({symbol: size})), 0)
            found[symbol] = max(edge, found.get(symbol, 0))
    return {symbol: edge for symbol, edge in found.items() if edge}


def larger_sizes(program: ExportedProgram, spec: Iterable[Input], sizes: Mapping[str, int]) -> dict[str, int]:
    """Sizes to trace at instead: beyond twice the first one at which something torch asks for holds no longer.

    A model that works in chunks takes another way within the first one.

    Args:
        program: traced with all sizes free.
        spec: the inputs it was traced with.
        sizes: of the symbols in the trace.
    """
    spec = tuple(spec)
    conditions = list(_conditions(program, symbol_names(program, spec)))
    dependent = {"batch", *_dependent(program, spec)}
    found = {}
    for symbol, size in sizes.items():
        tried = (n for n in (*range(size + 1, SMALL), *LARGE) if n > size and symbol not in dependent)
        broken = (n for n in tried if not all(holds({**sizes, symbol: n}) for _, holds in conditions))
        found[symbol] = next(broken, 0)
    return {symbol: sympy.nextprime(2 * n) for symbol, n in found.items() if n}


def _dependent(program: ExportedProgram, spec: Iterable[Input]) -> Iterator[str]:
    """Symbols that are a number, or an expression of other symbols."""
    owners: dict[str, str] = {}
    for symbol, size in _input_sizes(program, spec):
        plain = isinstance(size, torch.SymInt) and isinstance(size.node.expr, sympy.Symbol)
        if not plain or owners.setdefault(str(size), symbol) != symbol:
            yield symbol


def _input_sizes(program: ExportedProgram, spec: Iterable[Input]) -> Iterator[tuple[str, Any]]:
    shapes = {entry.name: entry.shape for entry in spec}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in shapes and isinstance(node.meta["val"], torch.Tensor):
            pairs = zip(shapes[node.name], node.meta["val"].shape, strict=True)
            yield from ((symbol, size) for symbol, size in pairs if isinstance(symbol, str))


def _least(symbol: str, sizes: Mapping[str, int], most: int | None, conditions: list[Condition]) -> tuple[int, str]:
    """The smallest size from which on every condition holds, the other symbols at their size in the trace.

    Returns:
        The size, and the condition that does not hold below it.
    """
    size = sizes[symbol]
    # One sample and no sample are cases of their own to torch, which a trace of several does not show.
    tried = {*range(SMALLEST, SMALL), *range(SMALL, 2 * size, max(1, size // STEPS)), *LARGE, size}
    least = max(tried) + 1
    for candidate in sorted((n for n in tried if most is None or n <= most), reverse=True):
        broken = next((text for text, holds in conditions if not holds({**sizes, symbol: candidate})), "")
        if broken:
            return least, broken
        least = candidate
    return least, ""


def _conditions(program: ExportedProgram, names: Mapping[str, str], rounds: int = 0) -> Iterator[Condition]:
    """What torch asks of the sizes. That two sizes differ is no such thing: it only chose the faster of two ways."""
    for symbol, bounds in program.range_constraints.items():
        if str(symbol) in names:
            lower = 2 if int(bounds.lower) == rounds else int(bounds.lower)
            yield _within(names[str(symbol)], lower, bounds.upper)
    paddings = set(_paddings(program))
    for expression in _asserted(program):
        if _counts_rounds(expression, rounds):
            continue
        if _is_strict(expression) and expression.gts in paddings:
            # Padding by nothing is as good: code that asks for more spares itself the call.
            expression = sympy.GreaterThan(expression.gts, 0)
        if not isinstance(expression, sympy.Ne) and {str(s) for s in expression.free_symbols} <= names.keys():
            yield _evaluated(expression, names)


def _paddings(program: ExportedProgram) -> Iterator[Any]:
    """The expressions of one symbol each by which something is padded."""
    for node in program.graph.nodes:
        if node.target in (torch.ops.aten.pad.default, torch.ops.aten.constant_pad_nd.default):
            values = (amount.meta.get("val") for amount in node.args[1] if isinstance(amount, torch.fx.Node))
            amounts = (value.node.expr for value in values if isinstance(value, torch.SymInt))
            yield from (amount for amount in amounts if len(amount.free_symbols) == 1)


def settled_sizes(program: ExportedProgram) -> dict[Any, int]:
    """The expressions over torch's symbols that the program asserts to be a number, with the number.

    A sequence that is padded to whole chunks and cut into them leaves such: the quotient of all and the number of
    chunks is the length of one.
    """
    equations = (found for found in _asserted(program) if isinstance(found, sympy.Eq))
    sides = (side for found in equations for side in (found.args, found.args[::-1]))
    return {expression: int(number) for expression, number in sides if number.is_Integer and not expression.is_Integer}


def _asserted(program: ExportedProgram) -> Iterable[Any]:
    """The expressions over its symbols that the program asserts."""
    asserted = (node.args[0] for node in program.graph.nodes if str(node.target) == "aten._assert_scalar.default")
    values = (node.meta.get("val") for node in asserted if isinstance(node, torch.fx.Node))
    return dict.fromkeys(value.node._expr for value in values if isinstance(value, torch.SymBool))


def _counts_rounds(expression: Any, rounds: int) -> bool:
    """Whether it asks for no more rounds of a loop than there are in the trace."""
    if not isinstance(expression, _STRICT | sympy.GreaterThan | sympy.LessThan) or not expression.lts.is_Integer:
        return False
    return 1 < int(expression.lts) + isinstance(expression, _STRICT) <= rounds


def _is_strict(expression: Any) -> bool:
    """Whether it asks for something to be above zero."""
    return isinstance(expression, _STRICT) and expression.lts == 0


def _within(symbol: str, low: int, high: Any) -> Condition:
    return f"{low} <= {symbol} <= {high}", lambda sizes: low <= sizes[symbol] <= high


def _evaluated(expression: Any, names: Mapping[str, str]) -> Condition:
    text = PythonPrinter().doprint(expression)
    code = compile(text, "<assertion>", "eval")

    def holds(sizes: Mapping[str, int]) -> bool:
        values = {torch_name: sizes[symbol] for torch_name, symbol in names.items()}
        try:
            return bool(eval(code, {"math": math, "torch": torch}, values))
        except ZeroDivisionError:
            return False

    for torch_name, symbol in names.items():
        text = re.sub(rf"\b{torch_name}\b", symbol, text)
    return text[:LONGEST_TEXT], holds


def unrolled_loop(program: ExportedProgram, rounds: int) -> str:
    """The source line that stands most often in one module's trace, if it is in a loop of so many rounds; or none."""
    lines: Counter[tuple[str, str, str]] = Counter()
    for node in program.graph.nodes:
        frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
        own = [frame for frame in frames if not frame[0].startswith(_TORCH)]
        if node.op == "call_function" and own:
            module = next(reversed(node.meta.get("nn_module_stack") or {"": ""}))
            lines[f"{os.path.basename(own[-1][0])}:{own[-1][1]}", module, str(node.target)] += 1
    (line, *_), count = max(lines.items(), key=lambda item: item[1], default=(("", "", ""), 0))
    return f"the loop at {line} is unrolled, {count} times" if count >= max(rounds, SHORTEST_LOOP) else ""
