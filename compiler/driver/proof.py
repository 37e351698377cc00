"""The proof of a package: which inputs, at which sizes, against which model."""

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from hf2khc.capture.build import build_meta
from hf2khc.capture.input_types import Input
from hf2khc.capture.inputs import sample_inputs
from hf2khc.capture.prepared import completed
from hf2khc.capture.source import Source
from hf2khc.check import proof as data
from hf2khc.check.cases import build_cases, choose_sizes
from hf2khc.check.prove import BACKENDS, prove

if TYPE_CHECKING:
    from hf2khc.driver.compile import Compiled


def prove_package(
    directory: Path, source: Source, compiled: "Compiled", backends: Sequence[str] | None, seed: int = 0
) -> data.Proof:
    """Runs the proof of a package with its weights.

    Args:
        directory: the package.
        source: the model, with its weights in `source.directory`.
        compiled: what the package was written from.
        backends: Keras backends; those installed by default.
        seed: of the inputs.

    Raises:
        ConversionError: `reference`, when the transformers model cannot be run.
    """
    cases = proof_cases(source, compiled.captured, seed)
    return prove(directory, reference(source), cases, compiled.signature, backends or installed_backends())


class Described(Protocol):
    """What a model takes: a captured model, or a description of its inputs alone."""

    @property
    def spec(self) -> tuple[Input, ...]:
        """The inputs."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """A size for every symbol."""

    @property
    def smallest(self) -> Mapping[str, int]:
        """The smallest size of each symbol that is free."""

    @property
    def largest(self) -> Mapping[str, int]:
        """The largest size of those that have one."""

    @property
    def edges(self) -> Mapping[str, int]:
        """Of free symbols, a size at which nothing is padded though the trace pads."""


def proof_cases(source: Source, captured: Described, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """The input sets: those the user gave; free sizes other than the traced ones; padding where there is a mask."""
    free = captured.smallest
    held = {symbol: size for symbol, size in captured.sizes.items() if symbol not in free}
    traced = {symbol: size for symbol, size in captured.sizes.items() if symbol in free}
    bindings = list(choose_sizes(traced, captured.largest, captured.smallest))
    edges = {symbol: size for symbol, size in captured.edges.items() if size <= captured.largest.get(symbol, size)}
    bindings += [{**bindings[0], **edges}] if edges else []
    # choose_sizes always binds the batch: a batch that torch would not free keeps the size of the trace.
    sizes = [{**binding, **held} for binding in bindings]

    def sample(binding: Mapping[str, int], number: int, padding: str) -> dict[str, np.ndarray]:
        return sample_inputs(captured.spec, dict(binding), number, padding)

    cases = build_cases(sample, sizes, masked=any(entry.role == "mask" for entry in captured.spec), seed=seed)
    return {**_given(source, captured), **cases}


def _given(source: Source, captured: Described) -> dict[str, dict[str, np.ndarray]]:
    """The inputs that the user gave, with what the package takes besides: transformers computes it itself."""
    if not source.examples:
        return {}
    model = build_meta(source.config, source.model_class)
    examples = (completed(model, captured.spec, example) for example in source.examples)
    return {f"inputs {number}": dict(example) for number, example in enumerate(examples, 1)}


def reference(source: Source) -> data.Source:
    """The model as the process of the reference finds it."""
    # Whatever made the class importable here makes it importable there: code of a repository, a script's folder.
    search = tuple(dict.fromkeys(path or os.getcwd() for path in sys.path))
    cls = source.model_class
    return data.Source(cls.__module__, cls.__qualname__, str(source.directory), python_path=search)


def installed_backends() -> tuple[str, ...]:
    """The Keras backends that are installed here."""
    return tuple(name for name in BACKENDS if find_spec(name) is not None)
