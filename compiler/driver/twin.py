"""The twin: the same model at small sizes, compiled with every pass validated, in the process of `twin_process.py`."""

import math
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import sympy

from hf2khc.capture.aten import aten_evaluator
from hf2khc.capture.build import build_meta
from hf2khc.capture.frontend import Captured, capture, fixed_lengths
from hf2khc.capture.input_types import Example
from hf2khc.capture.inputs import input_spec, sample_inputs
from hf2khc.capture.omitted import omitted_outputs
from hf2khc.capture.twin import twin_config
from hf2khc.capture.twin_alike import Alike
from hf2khc.diagnostics import ConversionError, fail
from hf2khc.driver.config_fields import common_fields
from hf2khc.driver.depth import as_deep_as, at_another_depth, depth_fields, with_more_rounds
from hf2khc.driver.generalise import difference
from hf2khc.ir.evaluate import keras_evaluators
from hf2khc.ir.float64 import float64
from hf2khc.ir.graph import Program
from hf2khc.ir.interpret import interpret
from hf2khc.ir.memo import Memo, Recent
from hf2khc.ir.validate import MISCOMPILE, relative_error, validate

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

Lower = Callable[..., dict[str, Program]]
T = TypeVar("T")
# Parameters of a model that is interpreted itself because it has no twin.
MOST_VALIDATED = 300_000_000
# A size of a trace above which fewer positions are interpreted.
LONG = 100
# Passes are compared in float64; what they may differ by is the order of summation.
TOLERANCE = 1e-10


@dataclass(frozen=True)
class Twinned:
    """What the twin's process found.

    Args:
        programs: the twins at the keras level, the validated one first; a model may have none.
        reason: why it has none.
        fields: `config.FIELD` to the real value and each twin's.
        depth: the config field behind the length of each list of layers.
        constants: not in the checkpoint: arrays by absolute path.
        errors: largest error of each pass in float64, relative to the largest magnitude of the output.
        config: of the last twin.
        omitted: outputs of the model that the package does not have, with the reason.
        causal: whether no output depends on a later position of the input.
        kept: fields of the config that the twins do not change, with the reason.
    """

    programs: tuple[Program, ...]
    reason: str = ""
    fields: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    depth: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    config: "PreTrainedConfig | None" = None
    omitted: Mapping[str, str] = field(default_factory=dict)
    causal: bool = False
    kept: Mapping[str, str] = field(default_factory=dict)

    @property
    def constants(self) -> Mapping[str, np.ndarray]:
        """The constants of the last twin, which `config` belongs to."""
        return self.programs[-1].constants if self.programs else {}


def compile_twin(
    config: "PreTrainedConfig",
    model_class: "type[PreTrainedModel]",
    lower: Lower,
    validated: bool,
    cut: bool = True,
    examples: Sequence[Example] = (),
    like: Program | None = None,
) -> Twinned:
    """Capture and lower the twin, each pass validated.

    A model that does not run at other sizes has no twin: its own program is validated then.

    Args:
        like: the real program, where a first twin was none of its counterparts: what makes it another one stays.

    Raises:
        ConversionError: a pass changed what the twin computes.
    """
    try:
        return _twinned(config, model_class, lower, validated, cut, examples, like)
    except ConversionError as error:
        if error.diagnostics[0].code == MISCOMPILE:
            raise
        reason = error.diagnostics[0].message
    except Exception as error:  # a model's own code may fail in any way
        reason = f"{type(error).__name__}: {error}"
    return _without_twin(config, model_class, lower, validated, cut, examples, reason)


def _without_twin(
    config: "PreTrainedConfig", model_class: "type[PreTrainedModel]", lower: Lower, validated: bool, cut: bool,
    examples: Sequence[Example], reason: str,
) -> Twinned:  # fmt: skip
    """The model itself in the place of its twin: it is validated, and says nothing about other sizes.

    Raises:
        ConversionError: `twin`, where it is too large for that: no program is printed whose passes nobody checked.
    """
    captured = capture(config, model_class, cut, examples)
    errors: dict[str, float] = {}
    reason = f"the model does not run at other sizes ({reason})"
    if validated:
        if captured.kept_parameters > MOST_VALIDATED:
            raise fail("twin", f"{reason}, and is too large for its passes to be validated at its own")
        with float64():
            lower(captured.program, _Validation(captured, errors))
    omitted = omitted_outputs(config, model_class, captured.spec, dict(captured.sizes))
    return Twinned((), reason, errors=errors, omitted=omitted)


def _twinned(
    config: "PreTrainedConfig", model_class: "type[PreTrainedModel]", lower: Lower, validated: bool, cut: bool,
    examples: Sequence[Example], like: Program | None,
) -> Twinned:  # fmt: skip
    model = build_meta(config, model_class)
    lengths = {path: len(m) for path, m in model.named_modules() if type(m).__name__ == "ModuleList"}
    fixed = fixed_lengths(model, examples)

    uncut: frozenset[str] = frozenset()

    def trace(twin: "PreTrainedConfig") -> Captured:
        # What cannot be cut shows in a trace that fails: once is enough for all candidates.
        nonlocal uncut
        captured = capture(twin, model_class, cut, examples, fixed, uncut)
        uncut = captured.whole
        return captured

    # The last candidate of a search is mostly what it finds.
    traced = _Last(trace)
    lowered = _Last(lambda twin: _last(lower(traced(twin).program)))
    depth = depth_fields(config, model_class, lengths)

    def deepened(twin: "PreTrainedConfig", whole: Collection[str]) -> "PreTrainedConfig":
        # Layers that are printed one by one are another program where there are more of them.
        printed = {field for path, field in depth.items() if not cut or path in whole or path in uncut}
        return at_another_depth(twin, model_class, set(depth.values()) - printed)

    def alike(program: Program) -> Alike:
        return lambda twin, whole: not _difference(program, lowered, deepened(twin, whole))

    spec = input_spec(model, examples)
    twin = twin_config(config, model_class, spec, examples, alike=None if like is None else alike(like))
    if not twin.changed:
        # Nothing would differ in it, and what does not differ would be said to follow the config.
        raise fail("twin", next(iter(twin.unchanged.values()), "its config has no numbers"))
    first = deepened(twin.config, twin.whole)
    captured = traced(first)
    if not uncut <= twin.whole:  # a list of two layers is whole as it is: that it stays so shows in a longer one
        first = deepened(twin.config, uncut)
        captured = traced(first)
    errors: dict[str, float] = {}
    check = _Validation(captured, errors) if validated else None
    with float64():
        programs = [_last(lower(captured.program, check))]
        causal = _is_causal(captured, programs[0])
    # One number may fit an expression by chance in one twin; in a second one, made from the first, hardly.
    kept = {*twin.unchanged, *twin.delicate}
    like_first = None if like is None else alike(programs[0])
    second = twin_config(first, model_class, captured.spec, examples, kept, like_first, apart=config)
    other = deepened(with_more_rounds(second.config, model_class, programs[0]), second.whole)
    if second.changed:
        with suppress(Exception):  # of a model's own code: one twin is better than none
            programs.append(lowered(other))
    configs = [config, first, other][: len(programs) + 1]
    return Twinned(
        tuple(programs),
        fields=common_fields(configs),
        depth=depth,
        errors=errors,
        config=as_deep_as(configs[-1], config, depth.values()),
        omitted=omitted_outputs(first, model_class, captured.spec, dict(captured.sizes)),
        causal=causal,
        kept=twin.unchanged,
    )


class _Last(Generic[T]):
    """A function of a config that keeps what it gave last."""

    def __init__(self, function: "Callable[[PreTrainedConfig], T]"):
        self._function = function
        self._known: tuple[dict[str, Any], T] | None = None

    def __call__(self, config: "PreTrainedConfig") -> T:
        key = config.to_dict()
        if self._known is None or self._known[0] != key:
            self._known = key, self._function(config)
        return self._known[1]


def _difference(program: Program, lowered: "Callable[[PreTrainedConfig], Program]", config: "PreTrainedConfig") -> str:
    """Why the program at a config is no counterpart of another one; empty where it is."""
    try:
        return difference((program, lowered(config)))
    except Exception as error:  # a model's own code may fail in any way
        return str(error) or type(error).__name__


def _is_causal(captured: Captured, program: Program) -> bool:
    """Whether another last token changes what is returned for its position and nothing before it.

    Of a model with several sequences that of the first output counts, and the outputs that go with it.
    """
    main = program.main
    axis = main[main.outputs[0]].tensor.shape[1:2]
    outputs = [i for i, name in enumerate(main.outputs) if main[name].tensor.shape[1:2] == axis]
    read = (entry for entry in captured.spec if entry.role == "data" and entry.name in main)
    tokens = [entry for entry in read if main[entry.name].tensor.shape[1:] == axis]
    if len(tokens) != 1 or tokens[0].fill[0] != "randint" or len(tokens[0].shape) != 2:
        return False
    name = tokens[0].name
    inputs = sample_inputs(captured.spec, _sizes(captured), seed=1)
    other = dict(inputs) | {name: inputs[name].copy()}
    # Half of the vocabulary on, not one: the low tokens of a model may be special.
    low, high = tokens[0].fill[1:3]
    other[name][:, -1] = low + (inputs[name][:, -1] - low + (high - low) // 2) % (high - low)
    parameter = _Parameters(captured)
    found = [interpret(program, given, parameter, keras_evaluators()) for given in (inputs, other)]
    pairs = [tuple(np.asarray(values[i]) for values in found) for i in outputs]
    return all(relative_error(b[:, :-1], a[:, :-1]) <= TOLERANCE < relative_error(b[:, -1], a[:, -1]) for a, b in pairs)


def _sizes(captured: Captured) -> dict[str, int]:
    """The sizes of the trace; about half of it where a loop over chunks needs three rounds: two are enough here."""
    found: dict[str, int] = {}
    for symbol, size in sorted(captured.sizes.items(), key=lambda item: item[1]):
        half = sympy.nextprime(size // 2)
        while half in found.values():
            half = sympy.nextprime(half)
        is_less = size > LONG and captured.smallest.get(symbol, size) <= half < size
        found[symbol] = half if is_less else size
    return found


def _last(stages: dict[str, Program]) -> Program:
    return list(stages.values())[-1]


class _Validation:
    """Interprets the program before and after each pass on one set of inputs and random parameters."""

    def __init__(self, captured: Captured, errors: dict[str, float]):
        self.parameter, self.errors = _Parameters(captured), errors
        self.inputs = sample_inputs(captured.spec, _sizes(captured), seed=1, padding="right")
        aten, memo = aten_evaluator(), Memo()
        # Those of torch may write into their operands.
        lowered = {level: memo.over(evaluator) for level, evaluator in keras_evaluators().items()}
        self.evaluators = {**lowered, "aten": aten, "transformers": aten}
        self.last: tuple[Program | None, tuple | None] = (None, None)

    def __call__(self, stage: str, before: Program, after: Program) -> None:
        # What one pass gave is what the next one takes.
        known = self.last[1] if self.last[0] is before else None
        outputs = interpret(after, self.inputs, self.parameter, self.evaluators)
        self.errors[stage] = validate(
            before, after, self.inputs, self.parameter, self.evaluators, TOLERANCE, stage, outputs=(known, outputs)
        )
        self.last = after, outputs


@dataclass(frozen=True)
class _Parameters:
    """Random weights by path: of zero mean where they are matrices, around one where they are vectors."""

    captured: Captured
    drawn: Recent[np.ndarray] = field(default_factory=Recent)

    def __call__(self, path: str) -> np.ndarray:
        value = self.captured.state[path]
        if isinstance(value, np.ndarray):
            return value
        drawn = self.drawn.get(path)
        if drawn is None:
            drawn = self._drawn(path, value)
            self.drawn.put(path, drawn)
        return drawn

    @staticmethod
    def _drawn(path: str, value: tuple[int, ...]) -> np.ndarray:
        random = np.random.default_rng(zlib.crc32(path.encode()))
        if len(value) >= 2:
            # A kernel sums over its window and channels. Values that grow with depth would grow what rounding leaves.
            return random.normal(0.0, max(1, math.prod(value[1:])) ** -0.5, value)
        return random.uniform(0.5, 1.5, value)
