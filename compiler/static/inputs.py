"""What a model takes, where no trace says it: for the proof of a package that was made without one."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hf2khc.capture.build import build_meta
from hf2khc.capture.free_sizes import SMALLEST
from hf2khc.capture.input_types import Input
from hf2khc.capture.inputs import input_spec, longest_sequences, trace_sizes
from hf2khc.capture.source import Source


@dataclass(frozen=True)
class Untraced:
    """The inputs of a model by its signature and its config: every size that may be free is taken to be."""

    spec: tuple[Input, ...]
    sizes: Mapping[str, int]
    smallest: Mapping[str, int]
    largest: Mapping[str, int]
    edges: Mapping[str, int] = field(default_factory=dict)


def untraced(source: Source) -> Untraced:
    """The inputs of a model.

    Raises:
        ConversionError: `inputs-unknown`, where nothing describes them.
    """
    model = build_meta(source.config, source.model_class)
    spec = input_spec(model)
    sizes = trace_sizes(model, spec)
    return Untraced(spec, sizes, dict.fromkeys(sizes, SMALLEST), longest_sequences(source.config, sizes))
