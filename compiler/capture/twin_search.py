"""The search for values that the fields of a config can have while the structure of its model stays."""

import copy
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from hf2khc.capture.build import build_meta, configs
from hf2khc.capture.input_types import Example, Input
from hf2khc.capture.inputs import input_spec, sample_inputs, symbols, trace_sizes
from hf2khc.capture.shapes_alone import run_in_shapes
from hf2khc.capture.trial import trial_error
from hf2khc.capture.truncate import truncate
from hf2khc.capture.twin_fields import get_field, numeric_fields, set_field
from hf2khc.capture.twin_values import HEAD_DIM, HEADS, WIDTH
from hf2khc.capture.whole_lists import whole_lists
from hf2khc.diagnostics import ConversionError

# Counts and not times: the twin must not depend on how busy the machine is.
MOST_TRIES = 72
MOST_BALANCED = 12
# Operations that compute nothing: they ask, or arrange what is there, which hangs on how it lies in memory.
_ARRANGES = re.compile(
    r"prim\.|aten\.(\w*view|reshape|\w*_copy|copy_|clone|contiguous|detach|alias|expand|permute|transpose|t|squeeze"
    r"|unsqueeze|slice|select|as_strided|lift_fresh)\b"
)


class Refused(Exception):
    """A candidate that does not build, does not run, or has another structure."""


class Search:
    """Finds values for the fields of a config with which the model has the same structure.

    Args:
        whole: lists of layers that stay whole: the model does not run without each of them.
        accepted: by path, what was found so far.
        changes: what makes it up: each changes fields that belong together.
        delicate: fields whose first new value gave another program.
    """

    def __init__(
        self, config: PreTrainedConfig, model_class: type[PreTrainedModel], inputs: tuple[str, ...],
        examples: Sequence[Example],
    ):  # fmt: skip
        self.config, self.model_class, self.inputs, self.examples = config, model_class, inputs, examples
        self.sizes: dict[str, int] = {}
        self.delicate: frozenset[str] = frozenset()
        self.accepted: dict[str, Any] = {}
        self.changes: list[dict[str, Any]] = []
        self.linked: set[str] = set()
        self.unchanged: dict[str, str] = {}
        self.runs, self.tries, self.reason = True, 0, ""
        fields = list(numeric_fields(config))
        self.numbers = {f.path: f.value for f in fields if isinstance(f.value, int)}
        self.lists = {f.path: f.value for f in fields if isinstance(f.value, list)}
        self.reloads = reloaded(config).to_dict() == config.to_dict()
        self.whole: frozenset[str] = frozenset()
        self.structure = self._structure(config)
        if not self.runs:
            whole = whole_lists(config, model_class, examples, self.sizes)
            self.runs, self.whole = whole is not None, whole or frozenset(self.structure[0])
            self.structure = self._structure(config)

    def settle(self, groups: list[list[dict[str, Any]]]) -> None:
        """Accepts the first alternative of each group, all at once if possible, else in halves, else another one."""
        groups = [group for group in groups if not group[0].keys() <= self.accepted.keys() - self.linked]
        if not groups or self.accept({path: value for group in groups for path, value in group[0].items()}):
            self.linked -= {path for group in groups for path in group[0]}
            self.changes += [group[0] for group in groups]
            return
        if len(groups) > 1:
            middle = len(groups) // 2
            self.settle(groups[:middle])
            self.settle(groups[middle:])
            return
        reason, tried = self.reason, groups[0][0]
        if tried.keys() <= self.accepted.keys():
            return
        others = [values for values in (*map(self._linked, groups[0][:2]), *groups[0][1:]) if values != tried]
        for values in itertools.chain(others, itertools.islice(self._balanced(groups[0][:2]), MOST_BALANCED)):
            if self.accept(values):
                # By itself each may be another one: what is equal by chance is told apart.
                self.linked |= values.keys() - tried.keys()
                self.changes.append(values)
                break
        self.unchanged |= {path: reason for path in tried if path not in self.accepted}

    def _linked(self, values: dict[str, Any]) -> dict[str, Any]:
        """`values`, and the same new value for what has the same old one: some structures hang on equality."""
        news = {get_field(self.config, path): value for path, value in values.items() if isinstance(value, int)}
        equal: dict[str, Any] = {path: news[value] for path, value in self.numbers.items() if value in news}
        equal |= {
            path: [news.get(entry, entry) for entry in entries]
            for path, entries in self.lists.items()
            if not news.keys().isdisjoint(entries)
        }
        return {path: value for path, value in equal.items() if path not in self.accepted} | values

    def _balanced(self, alternatives: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Alternatives with another field in proportion, where products of fields are equal.

        Mamba 2 has `expand * hidden_size == n_heads * head_dim` and takes no width that breaks it.
        """
        free = {path: n for path, n in self.numbers.items() if path not in self.accepted}
        given: list[dict[str, Any]] = []
        # With all that changes together, or a field, those that are equal to it and the other one alone.
        for whole, values in itertools.product((False, True), alternatives):
            for path, new in values.items():
                old = self.numbers.get(path)
                kept = {p: n for p, n in values.items() if whole or (self.numbers.get(p), n) == (old, new)}
                others = [other for other in free if other not in kept] if old else []
                found = (kept | {other: n} for other in others for n in self._in_proportion(path, other, kept))
                for candidate in found:
                    if candidate not in given and self._heads_fit(candidate):
                        given.append(candidate)
                        yield candidate

    def _in_proportion(self, path: str, other: str, values: dict[str, Any]) -> Iterator[int]:
        """What the other field is with `values`, where one times a third equals it times a fourth, or either alone."""
        before = {name: n for name, n in self.numbers.items() if _are_beside(name, path)} | {"": 1}
        after = {**before, **self.accepted, **values}
        rest = [name for name in before if name not in (path, other)]
        for x, y in itertools.product(rest, rest) if other in before else ():
            if before[path] * before[x] == before[other] * before[y] and after[path] * after[x] % after[y] == 0:
                yield after[path] * after[x] // after[y]

    def _heads_fit(self, values: dict[str, Any]) -> bool:
        """Whether heads still share a width evenly: some models take the rest for nothing, and rotate odd sizes."""
        now = {**self.numbers, **self.accepted, **values}
        widths = [path for path in self.numbers if WIDTH.search(path)]
        heads = [path for path in self.numbers if HEADS.search(path) and not HEAD_DIM.search(path)]
        pairs = ((width, count) for width in widths for count in heads if _are_beside(width, count))
        return all(now[w] % now[h] == 0 for w, h in pairs if self.numbers[w] % self.numbers[h] == 0)

    def accept(self, values: dict[str, Any], alike: Callable[[PreTrainedConfig], bool] | None = None) -> bool:
        """Accept values on top of what was found, where the structure stays and `alike`, asked last, says yes."""
        self.tries += 1
        if self.tries > MOST_TRIES:
            self.reason = f"not found among {MOST_TRIES} candidates"
            return False
        try:
            config = self.laid_over(values)
            if self._structure(config) != self.structure:
                raise Refused("the structure of the model depends on it")
        except Refused as error:
            self.reason = str(error)
            return False
        if alike is not None and not alike(config):
            return False
        self.accepted |= values
        return True

    def laid_over(self, values: dict[str, Any]) -> PreTrainedConfig:
        config = copy.deepcopy(self.config)
        for path, value in {**self.accepted, **values}.items():
            try:
                set_field(config, path, value)
            except Exception as error:
                raise Refused(f"{path} does not take {value!r}: {error}") from error
        for part in configs(config):
            _move_token_ids(part)
        if self.reloads:
            # What a config takes over from another part of it when it is read is so from the start.
            try:
                config = reloaded(config)
            except Exception as error:
                raise Refused(f"the config cannot be read with it: {error}"[:300]) from error
        return config

    def _structure(self, config: PreTrainedConfig) -> Any:
        """What a twin must share with the real model; raises `Refused` if the model does not build or run."""
        try:
            model = build_meta(config, self.model_class)
            kinds = {
                path: (stack.length, stack.kept, stack.kinds) for path, stack in truncate(model, self.whole).items()
            }
            spec = input_spec(model, self.examples)
        except ConversionError as error:
            raise Refused(error.diagnostics[0].excerpt or error.diagnostics[0].message) from error
        if tuple(entry.name for entry in spec) != self.inputs or self.sizes and set(symbols(spec)) - self.sizes.keys():
            raise Refused("the inputs of the model depend on it")
        # Before it runs: a model may put other modules in their place for the inputs it is given. By name: torch makes
        # a class anew for every module that is parametrised.
        kinds_of = ((path, type(module)) for path, module in model.named_modules())
        modules = [(path, kind.__module__, kind.__qualname__) for path, kind in kinds_of]
        # A kernel of nothing is another structure, though torch may well run it.
        names = [(name, value.numel() == 0) for name, value in model.state_dict().items()]
        return kinds, modules, names, self._run(model, spec)

    def _run(self, model: PreTrainedModel, spec: tuple[Input, ...]) -> list[str]:
        """What a forward pass in shapes alone computes, up to a branch on data; views of tensors are none of it.

        Where the real model fails, others are only built.
        """
        if not self.runs:
            return []
        self.sizes = self.sizes or trace_sizes(model, spec)
        try:
            names = run_in_shapes(model, sample_inputs(spec, self.sizes))
        except Exception as error:
            if hasattr(self, "structure"):
                raise Refused(f"the model does not run with it: {type(error).__name__}: {error}"[:300]) from error
            self.runs = False
            return []
        return [name for name in names if not _ARRANGES.match(name)]

    def keep_what_fails(self) -> None:
        """Takes back the fields with whose new values the model does not run in numbers.

        Shapes alone do not show how far an index goes: into a table of buckets whose number is in the code, say.
        """
        error = self._error(self.laid_over({}))
        if not isinstance(error, self._telling):
            return
        before = dict(self.accepted)
        # One field mostly; of fields that change together not all may be taken back one after another.
        for path in before:
            self.accepted = {other: value for other, value in before.items() if other != path}
            if self._is_sound():
                break
        else:
            self.accepted = self._without_several(before)
        reason = f"the model does not run with it: {type(error).__name__}: {error}"[:300]
        self.unchanged |= {path: reason for path in before if path not in self.accepted}

    def _without_several(self, before: dict[str, Any]) -> dict[str, Any]:
        """What may stay of accepted values where no single one is at fault; all where nothing helps."""
        self.accepted = dict(before)
        for path in reversed(before):
            del self.accepted[path]
            if self._is_sound():
                break
        else:
            return before
        for path in [path for path in before if path not in self.accepted][1:]:
            self.accepted[path] = before[path]
            if not self._is_sound():
                del self.accepted[path]
        return self.accepted

    @cached_property
    def _telling(self) -> type[Exception]:
        """What says that a twin is none: an index out of range; anything, where shapes alone do not run the model."""
        return IndexError if self.runs or self._error(self.config) is not None else Exception

    def _is_sound(self) -> bool:
        try:
            config = self.laid_over({})
            return self._structure(config) == self.structure and not isinstance(self._error(config), self._telling)
        except Refused:
            return False

    def _error(self, config: PreTrainedConfig) -> Exception | None:
        # Cut as it is; some models count their layers themselves.
        return trial_error(config, self.model_class, self.examples, self.sizes, self.whole)


def reloaded(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config as it is read from a file; raises what its class raises where its fields do not fit."""
    again = type(config).from_dict(config.to_dict())
    for part, before in zip(configs(again), configs(config), strict=True):
        part._attn_implementation_internal = before._attn_implementation_internal
    return again


def _are_beside(path: str, other: str) -> bool:
    """Whether two fields belong to one part of the config."""
    return path.rpartition(".")[0] == other.rpartition(".")[0]


def _move_token_ids(config: PreTrainedConfig) -> None:
    """Moves token ids that a smaller vocabulary no longer has to its end, equal ones to one place, in place."""
    size = getattr(config.get_text_config(), "vocab_size", None)
    moved: dict[int, int] = {}
    for name, value in list(vars(config).items()):
        if size and name.endswith(("_token_id", "_token_index")) and isinstance(value, int) and value >= size:
            setattr(config, name, moved.setdefault(value, size - 1 - len(moved)))
