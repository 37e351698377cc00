"""From a model to torch's ExportedProgram, through transformers' own exporter."""

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from transformers import PreTrainedModel
from transformers.exporters.exporter_dynamo import DynamoConfig, DynamoExporter

from hf2khc.capture.absent_masks import absent_masks_stay_absent
from hf2khc.capture.build import configs, quiet
from hf2khc.capture.counted_loops import ROUNDS, CountedLoop, counted_loops
from hf2khc.capture.every_row import EveryRow
from hf2khc.capture.free_sizes import (
    SMALLEST,
    larger_sizes,
    padding_edges,
    smallest_sizes,
    symbol_names,
    unrolled_loop,
)
from hf2khc.capture.input_types import Input
from hf2khc.capture.inputs import longest_sequences, sample_inputs
from hf2khc.capture.known_values import KnownValues, known_inputs, traced_within, unknown_sizes
from hf2khc.capture.module_state import state_kept
from hf2khc.capture.number_buffers import number_buffers, numbers_for_buffers
from hf2khc.capture.prepared import nothing_added
from hf2khc.capture.refusal import refusal
from hf2khc.capture.tensor_lengths import free_lengths
from hf2khc.capture.time_loops import looped_lengths
from hf2khc.capture.twin_fields import POSITIONS, numeric_fields

# How the sizes are traced: each as a dimension of its own, as far as torch frees them, the batch alone, none.
FREE, FIXED = ("named", "auto"), ("batch", "static")
# All sizes fixed, and inputs that only say places and sizes held at the numbers of the example.
HELD = "held"
# All sizes free, and every row of what a mask picks rows from.
ROWS = "every row"
# All sizes free, and buffers of one number as numbers.
NUMBERS = "numbers"
# Loops over a free size: looked for, three rounds of each, all rounds of the example.
FOUND, ROLLED, UNROLLED = "found", "rolled", "unrolled"


@dataclass(frozen=True)
class Export:
    """A captured model.

    Args:
        program: torch's program; its outputs are the model's ModelOutput with `return_dict=True`.
        symbols: the name of each of torch's symbols: `{"s43": "batch", "s70": "seq"}`.
        sizes: the sizes it was traced at.
        attention: the attention implementation it was traced with.
        smallest: from which size on it holds, of each symbol that is free.
        largest: up to which size, of those that have an end.
        edges: of free symbols, a size at which the program pads by nothing though it pads in the trace.
        held: inputs that are held at the numbers of the example, and no inputs of the program.
        notes: what had to be done otherwise than planned, with the reason.
    """

    program: ExportedProgram
    symbols: dict[str, str]
    sizes: dict[str, int]
    attention: str
    smallest: dict[str, int]
    largest: dict[str, int]
    edges: dict[str, int]
    held: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def export(
    model: PreTrainedModel, spec: tuple[Input, ...], sizes: dict[str, int], lengths: Mapping[str, int] | None = None,
    rounds: bool = True,
) -> Export:  # fmt: skip
    """Traces a model with free batch and sequence sizes.

    Where torch refuses a free size it is freed as far as torch allows, then fixed; where it refuses the attention
    implementation the eager one is tried. Either is noted.

    Args:
        model: whose weights nobody reads.
        spec: its inputs.
        sizes: of the symbols in the trace.
        lengths: of the symbols that cannot be free; those of the trace if None.
        rounds: whether a loop over a free size may be traced as three marked rounds.

    Raises:
        ConversionError: `not-capturable` with the model's own source line.
    """
    attention = model.config._attn_implementation
    # First as it was built: each part then has what it supports, which one name for all of them would not give.
    implementations = [attention] if attention == "eager" else [attention, "eager"]
    attempts = [(name, kind) for kinds in (FREE, FIXED) for name in implementations for kind in kinds]
    if any(number_buffers(model)):
        attempts = [*((name, NUMBERS) for name in implementations), *attempts]
    trace = _Trace(model, spec, sizes, {**sizes, **(lengths or {})}, FOUND if rounds else UNROLLED)
    while attempts:
        implementation, kind = attempts.pop(0)
        with _attention_kept(model):
            found = trace.attempt(implementation, kind)
            if found is not None and not unknown_sizes(found.program):
                return trace.at_larger_sizes(found)
        trace.partial = trace.partial or found
        if not trace.kinds & {ROWS, HELD} and (found or isinstance(trace.first, GuardOnDataDependentSymNode)):
            others = [(name, kind) for kind in (ROWS, HELD) for name in implementations]
            attempts = [*others, *(attempts if found is None else ())]
    if trace.partial is not None:  # what depends on data shows in the import, with its place
        return trace.partial
    assert trace.first is not None
    raise refusal(model, trace.first) from trace.first


class _Trace:
    """Attempts to trace one model, and what they show: which sizes are fixed, and why."""

    def __init__(
        self, model: PreTrainedModel, spec: tuple[Input, ...], sizes: dict[str, int], lengths: dict[str, int],
        loops: str = UNROLLED,
    ):  # fmt: skip
        self.model, self.spec, self.sizes, self.lengths, self.loops = model, spec, sizes, lengths, loops
        self.attention = model.config._attn_implementation
        self.first: Exception | None = None
        self.partial: Export | None = None
        self.kinds: set[str] = set()
        self.notes: list[str] = []
        self.longest = longest_sequences(model.config, sizes)
        self.asked = sizes
        numbers = [field.value for field in numeric_fields(model.config) if POSITIONS.search(field.name)]
        self.positions = [number for number in (*numbers, *self.longest.values()) if isinstance(number, int)]
        loops_over = looped_lengths(model, spec, sizes)
        if not all(loop.is_counted for loop in loops_over.values()):
            self.loops = UNROLLED
        self.looped = {symbol: loop.reason for symbol, loop in loops_over.items()}
        self.fixed: dict[str, str] = {} if self.loops == FOUND else dict(self.looped)

    def attempt(self, implementation: str, kind: str) -> Export | None:
        """A trace, with ever more sizes fixed as it shows that they are not free; None if torch refuses it."""
        self.kinds.add(kind)
        values = known_inputs(self.spec) if kind == HELD else None
        free = {"batch": ("batch",), "static": (), HELD: ()}.get(kind, tuple(self.sizes))
        fixed = {symbol: "no other sizes are traced" for symbol in self.sizes if symbol not in free}
        while True:
            held = fixed | self.fixed
            sizes = {symbol: (self.lengths if symbol in held else self.sizes)[symbol] for symbol in self.sizes}
            try:
                if implementation != self.attention:
                    self.model.set_attn_implementation(implementation)
                program = self._traced(kind, sizes, held, values)
                symbols = symbol_names(program, self.spec)
            except CountedLoop as loop:
                self._next_loops(loop)
                continue
            except Exception as error:
                found = _specialised(error)
                if self.loops == ROLLED and not found:
                    # Three rounds that the model does not put together as expected: all of them, then.
                    self._next_loops(CountedLoop())
                    continue
                if kind != NUMBERS:
                    self.first = self.first or error
                    self.notes.append(f"{implementation} attention, {kind} sizes: {_summary(error)}")
            else:
                rounds = ROUNDS if self.loops == ROLLED else 0
                smallest, ends, found = smallest_sizes(program, self.spec, sizes, self.positions, rounds)
                if found.keys() <= held.keys():
                    lengths = (*_lengths(sizes, held, program), *_from_which_on(smallest))
                    notes = (*self.notes, *lengths, *_held(values or ()), *_rows(kind))
                    largest = {symbol: n for symbol, n in {**self.longest, **ends}.items() if symbol in smallest}
                    edges = padding_edges(program, self.spec, smallest)
                    return Export(
                        program, symbols, sizes, implementation, smallest, largest, edges, values or (), notes
                    )
            if found.keys() <= held.keys():
                return None
            self.fixed |= {symbol: reason for symbol, reason in found.items() if symbol not in held}

    def _traced(
        self, kind: str, sizes: dict[str, int], held: Mapping[str, str], values: tuple[str, ...] | None
    ) -> ExportedProgram:
        dimensions = self._dimensions(kind, held)
        loops = nullcontext() if self.loops == UNROLLED else counted_loops(self.model, self.loops == ROLLED)
        numbers = numbers_for_buffers(self.model) if kind == NUMBERS else nullcontext()
        with loops, numbers, _one_as_any(self.is_longer):
            return _trace(self.model, self.spec, sizes, dimensions, values, kind == ROWS)

    def _next_loops(self, loop: CountedLoop) -> None:
        """A loop over a free size was found, or has too few rounds at this size, or cannot be rolled."""
        longer = {symbol for symbol, size in self.sizes.items() if size == loop.size < loop.enough}
        if self.loops == FOUND or (self.loops == ROLLED and longer and not self.is_longer):
            self.loops = ROLLED
            self._take({symbol: sympy.nextprime(loop.enough) for symbol in longer})
        else:
            self._take(self.asked)
            self.loops = UNROLLED
            self.fixed |= self.looped

    @property
    def is_longer(self) -> bool:
        """Whether a size is larger than was asked for, so that there are several chunks."""
        return self.sizes != self.asked

    def _take(self, sizes: Mapping[str, int]) -> None:
        """Trace at other sizes; that the model was made for fewer positions need not mean that it takes no more."""
        self.sizes = {**self.sizes, **sizes}
        longest = longest_sequences(self.model.config, self.sizes)
        self.longest = {symbol: n for symbol, n in longest.items() if n >= self.sizes[symbol]}

    def at_larger_sizes(self, found: Export) -> Export:
        """The same traced at larger sizes, where a size is fixed because that of the trace is small; else `found`."""
        fixed = {*self.sizes} - {"batch", *found.smallest, *self.looped}
        if not fixed:
            return found
        try:
            free = _trace(self.model, self.spec, self.sizes, dict.fromkeys(self.sizes, Dim.AUTO), found.held)
            sizes = {symbol: n for symbol, n in larger_sizes(free, self.spec, self.sizes).items() if symbol in fixed}
            again = _Trace(self.model, self.spec, self.sizes, self.lengths)
            again._take(sizes)
            other = again.attempt(found.attention, "named") if sizes else None
        except Exception:  # a model's own code may fail in any way, and this is no more than an attempt
            return found
        if other is None or unknown_sizes(other.program) or not sizes.keys() <= other.smallest.keys():
            return found
        return other

    def _dimensions(self, kind: str, fixed: Mapping[str, str]) -> dict[str, Any]:
        """How torch is to take the size of each symbol."""
        found: dict[str, Any] = {}
        for symbol in self.sizes:
            longest = self.longest.get(symbol)
            least = ROUNDS if self.loops == ROLLED and symbol != "batch" else 2
            named = Dim(symbol, min=least, max=longest) if longest else Dim(symbol, min=least)
            found[symbol] = Dim.STATIC if symbol in fixed else Dim.AUTO if kind in ("auto", NUMBERS) else named
        return found


def _one_as_any(wanted: bool) -> AbstractContextManager:
    """Where it is wanted, one chunk is to torch no case of its own: the program for several holds for it, too."""
    return torch.fx.experimental._config.patch(backed_size_oblivious=True) if wanted else nullcontext()


@contextmanager
def _attention_kept(model: PreTrainedModel) -> Iterator[None]:
    """The attention implementation of every part is as before after the block."""
    before = [(part, part._attn_implementation) for part in configs(model.config)]
    try:
        yield
    finally:
        for part, implementation in before:
            part._attn_implementation_internal = implementation


def _trace(
    model: PreTrainedModel, spec: tuple[Input, ...], sizes: dict[str, int], dimensions: Mapping[str, Any],
    held: tuple[str, ...] | None = None, every_row: bool = False,
) -> ExportedProgram:  # fmt: skip
    samples = {name: torch.from_numpy(array) for name, array in sample_inputs(spec, sizes).items()}
    inputs = {name: sample for name, sample in samples.items() if name not in (held or ())}
    shapes = {
        entry.name: {axis: dimensions[size] for axis, size in enumerate(entry.shape) if isinstance(size, str)}
        for entry in spec
        if entry.name in inputs
    }
    known = {name: samples[name] for name in held or ()}
    mode = EveryRow() if every_row else KnownValues(known.values()) if held is not None else nullcontext()
    # torch remembers what operations give, and with free sizes that takes longer than to ask again.
    forgetful = torch._dynamo.config.patch(fake_tensor_cache_enabled=False)
    with (
        quiet(), nothing_added(), absent_masks_stay_absent(), state_kept(model), free_lengths(model), forgetful,
        traced_within(model, mode, known, {entry.name for entry in spec if entry.role == "mask"}),
    ):  # fmt: skip
        config = DynamoConfig(dynamic=True, dynamic_shapes=shapes, prefer_deferred_runtime_asserts_over_guards=True)
        program, _ = DynamoExporter().export_program(model, inputs, config)
    return program


def _specialised(error: Exception) -> dict[str, str]:
    """The symbols that have one size only, by what torch suggests in an error: lines such as `seq = 11`."""
    _, _, suggested = str(error).partition("Suggested fixes:")
    found = re.findall(r"^\s*(\w+) = \d+$", suggested, re.MULTILINE)
    return dict.fromkeys(found, "torch.export takes no other")


def _lengths(sizes: Mapping[str, int], fixed: Mapping[str, str], program: ExportedProgram) -> Iterator[str]:
    for symbol in sizes:
        if symbol in fixed:
            kind = "fixed size" if symbol == "batch" else "fixed length"
            loop = "" if symbol == "batch" else unrolled_loop(program, sizes[symbol] - 1)
            yield f"{kind} {symbol} = {sizes[symbol]}, proved at that alone: {loop or fixed[symbol]}"


def _from_which_on(smallest: Mapping[str, int]) -> Iterator[str]:
    for symbol, size in smallest.items():
        if size > SMALLEST:
            yield f"length {symbol} from {size} on: at smaller sizes the model takes another way, or none"


def _held(names: tuple[str, ...]) -> Iterator[str]:
    if names:
        yield f"held at the numbers of the example, and no input of the package: {', '.join(names)}"


def _rows(kind: str) -> Iterator[str]:
    if kind == ROWS:
        yield "where a mask picks rows, all of them are computed, and those that it marks are put back"


def _summary(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"
