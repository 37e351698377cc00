"""What the code writer is given: a program at the keras level and the names to print it with."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from hf2khc.diagnostics import fail
from hf2khc.ir.graph import Node, Program

CONSTANT = "constant."
IMAGE_CLASSIFIER = "ImageClassifier"
# What a scan computes in under every dtype policy: what it carries through thousands of entries is rounded at each.
SCANNED = "float32"


@dataclass(frozen=True)
class Field:
    """One constructor argument.

    Args:
        source: the name used in `Expr`s, such as `config.hidden_size`; a graph parameter; or `constant.<path>`.
        name: the Python name, such as `hidden_dim`.
        value: the value for this model, JSON-serialisable.
        doc: one line for `Args:`, type first, such as `int. The size of the vocabulary.`
    """

    source: str
    name: str
    value: object
    doc: str = ""


@dataclass(frozen=True)
class Head:
    """How the entry divides into a backbone and a task on top of it.

    Args:
        task: the class of `keras_hub.models` that the task derives from.
        name: what follows the prefix in the name of the task's class.
        backbone: the entry's nodes that are computed in the backbone.
        outputs: the values that the backbone returns, by their names in the package.
    """

    task: str
    name: str
    backbone: frozenset[str]
    outputs: Mapping[str, str]


# Symbols of a program that runs from any position on: how long the whole sequence is, and where the inputs start in it.
KEYS, START = "keys", "start_index"
# Puts new values into a cache; gives all values in it, or without a cache the new ones. The cache holds each of them as
# (batch, positions, *row): `rows` are those of all its values.
UPDATE = "hub.cache_update"
# A sequence with entries in front of it: zeros, or with a cache those that came before. The attributes are the index of
# the state in the cache, the axis, and how many they are.
WINDOW = "hub.state_window"
# Its operand, or with a cache the state of an index.
STATE = "hub.state"
# Its first operand; the others hold the states for what comes next, each described by the attributes as a `State`.
KEEP = "hub.state_update"
# Gives its operands: computed once by a method of the layer, or handed in. Its results' names end in the second.
ONCE, KEPT = "hub.computed_once", "_kept"


@dataclass(frozen=True)
class State:
    """What a layer keeps of all that came before.

    Args:
        row: its shape without the batch, which is its first axis.
        value: what all entries are at the beginning.
        axis: of the value that holds the next state, the axis along which it is at the end.
        size: how many entries there; None for one entry without that axis.
    """

    row: tuple
    value: float
    axis: int
    size: object = None


def state_attributes(states: Sequence[State]) -> dict[str, tuple]:
    """The attributes of a `hub.state_update`."""
    rows = [(state.row, state.value, state.axis, state.size) for state in states]
    return dict(zip(_STATES, zip(*rows, strict=True), strict=True))


def states_of(node: Node) -> list[State]:
    """What the operands of a `hub.state_update` are, behind the first."""
    return [State(*values) for values in zip(*(node.attrs[name] for name in _STATES), strict=True)]


_STATES = ("rows", "values", "axes", "sizes")


@dataclass(frozen=True)
class Decoding:
    """What is printed of a causal model that runs from any position on.

    Args:
        cached: the graphs with a `hub.cache_update` or a `hub.state_update`, at any depth.
        indexed: the graphs that need to know where their inputs start, those among them.
        layers: the names of the calls and loops of the entry whose layers have a cache.
        encoded: the value that the encoder hands to every step; empty where there is none.
        once: for the graphs, among them those of the layers, with a `hub.computed_once` at some depth, the inputs that
            its operands are computed from; empty where every step computes all.
        has_states: whether some layer keeps a state, which must stop where a prompt does.
        whole: the inputs that are there at all positions, as long as the cache.
    """

    cached: frozenset[str]
    indexed: frozenset[str]
    layers: tuple[str, ...]
    encoded: str = ""
    once: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    has_states: bool = False
    whole: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Text:
    """How text becomes inputs of the model.

    Args:
        file: the content of the tokenizer's `tokenizer.json`.
        arguments: of the tokenizer's constructor.
        preprocessor: the class of `keras_hub.models` that the preprocessor derives from; empty where there is none.
        settings: of the preprocessor's constructor.
        sequence_length: of a text that is read.
    """

    file: str
    arguments: Mapping[str, object]
    preprocessor: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    sequence_length: int = 512


@dataclass(frozen=True)
class Images:
    """How images become inputs of the model.

    Args:
        arguments: of the image converter's constructor.
        preprocessor: the class of `keras_hub.models` that the preprocessor derives from; empty where there is none.
        settings: of the preprocessor's constructor.
    """

    arguments: Mapping[str, object]
    preprocessor: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A package to be written.

    Args:
        package: name of the folder and prefix of its files.
        prefix: CamelCase prefix of the classes; the backbone is `<prefix>Backbone`.
        program: at the keras level; every graph but the entry becomes a layer class.
        fields: every field mentioned anywhere, in the order of the constructor.
        inputs: for each input node of the entry, its name and dtype in the package.
        outputs: names of the outputs in the package.
        tiny: values by `Field.source` of a small config, for the tests that are printed; absent ones keep their value.
        provenance: what the docstring says about the origin of the model, by label.
        head: how the entry divides into backbone and task; None where all of it is the backbone.
        decoding: how the program runs from any position on; None where it does not.
        generation: further constructor arguments of a causal language model, which say how it generates by default.
        text: how text becomes its inputs; None where the model came without a tokenizer.
        images: how images become its inputs; None where the model came without an image processor.
        least: of sizes that are free, the smallest one that the model takes, where that is more than a few.
        numbers: what the examples give an input of which not every number makes sense, by node: 0 where it looks up in
            a table of one row, or nested lists as the user's own example has them; of the others ones.
    """

    package: str
    prefix: str
    program: Program
    fields: tuple[Field, ...]
    inputs: Mapping[str, tuple[str, str]]
    outputs: tuple[str, ...]
    tiny: Mapping[str, object] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    head: Head | None = None
    decoding: Decoding | None = None
    generation: Mapping[str, object] = field(default_factory=dict)
    text: Text | None = None
    images: Images | None = None
    least: Mapping[str, int] = field(default_factory=dict)
    numbers: Mapping[str, int | list[Any]] = field(default_factory=dict)

    @property
    def preprocessor(self) -> str:
        """The class of `keras_hub.models` that the preprocessor derives from; empty where there is none."""
        return (self.text.preprocessor if self.text else "") or (self.images.preprocessor if self.images else "")

    @functools.cached_property
    def by_source(self) -> Mapping[str, Field]:
        return MappingProxyType({f.source: f for f in self.fields})

    @functools.cached_property
    def values(self) -> Mapping[str, object]:
        """The value of every field by source, lists as tuples: what `Expr`s are evaluated with."""
        return MappingProxyType(_with_entries({f.source: as_ir(f.value) for f in self.fields}))

    @functools.cached_property
    def tiny_values(self) -> Mapping[str, object]:
        """`values` at the small config."""
        return MappingProxyType(_with_entries({**self.values, **{k: as_ir(v) for k, v in self.tiny.items()}}))

    def field(self, source: str) -> Field:
        """The field of a source.

        Raises:
            ConversionError: `unnamed-field`, for a name the plan does not have.
        """
        if source not in self.by_source:
            raise fail("unnamed-field", f"the package has no constructor argument for {source}")
        return self.by_source[source]


def _with_entries(values: Mapping[str, object]) -> dict[str, object]:
    """Values and, by `SOURCE._0`, the entries of those that are lists."""
    lists = ((source, value) for source, value in values.items() if isinstance(value, tuple))
    return {**values, **{f"{source}._{i}": entry for source, value in lists for i, entry in enumerate(value)}}


def as_ir(value):
    """A JSON value as an attribute value: lists become tuples."""
    return tuple(map(as_ir, value)) if isinstance(value, list | tuple) else value
