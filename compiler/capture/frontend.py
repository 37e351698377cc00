"""A config and a class to a Program[aten]."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import PreTrainedConfig, PreTrainedModel

from hf2khc.capture.build import build_meta, materialise
from hf2khc.capture.dropout_rates import dropout_rates, restore_rates
from hf2khc.capture.examples import sizes_of
from hf2khc.capture.export import Export, export
from hf2khc.capture.importer import import_program
from hf2khc.capture.input_types import Example, Input
from hf2khc.capture.inputs import input_spec, trace_sizes
from hf2khc.capture.names_analysis import assignment_names
from hf2khc.capture.roll_rounds import RoundsDiffer
from hf2khc.capture.truncate import Stack, truncate
from hf2khc.capture.whole_lists import whole_lists
from hf2khc.diagnostics import ConversionError
from hf2khc.ir.analysis import module_paths
from hf2khc.ir.graph import Program, join


@dataclass(frozen=True)
class Captured:
    """A traced model.

    Args:
        program: Program[aten] with repeated layers cut to the fewest that show every kind.
        spec: what the model takes.
        sizes: values of the size symbols it was traced at.
        smallest: the smallest size of each symbol that is free; the others have the size of the trace.
        largest: the largest size of those that have one.
        edges: of free symbols, a size at which nothing is padded though the trace pads.
        held: inputs of `spec` that the program has at the numbers of the example, and does not take.
        stacks: the lists of layers that were cut, by module path; not those of parts that the inputs leave out, such
            as a model of images that is given text alone.
        notes: what had to be done to trace it.
        state: parameters and persistent buffers of the truncated model, by path: the values of those that are no
            weights (integers), shapes of the others.
        parameters: number of parameters of the whole model.
        whole: lists of layers that could not be cut, where others could.
    """

    program: Program
    spec: tuple[Input, ...]
    sizes: Mapping[str, int]
    smallest: Mapping[str, int]
    largest: Mapping[str, int]
    edges: Mapping[str, int]
    held: tuple[str, ...]
    stacks: Mapping[str, Stack]
    notes: tuple[str, ...]
    state: Mapping[str, np.ndarray | tuple[int, ...]]
    parameters: int
    whole: frozenset[str] = frozenset()

    @property
    def kept_parameters(self) -> int:
        """Number of parameters of the layers that were not cut."""
        return sum(math.prod(value if isinstance(value, tuple) else value.shape) for value in self.state.values())


def capture(
    config: PreTrainedConfig, model_class: type[PreTrainedModel], cut: bool = True, examples: Sequence[Example] = (),
    lengths: Mapping[str, int] | None = None, whole: frozenset[str] = frozenset(),
) -> Captured:  # fmt: skip
    """Trace a model without its weights.

    Args:
        config: of the model.
        model_class: its class.
        cut: trace the fewest repeated layers that show every kind, where the model's own code lets them be cut.
        examples: inputs that the user gave.
        lengths: sizes of the symbols that cannot be free; by default those of `fixed_lengths`.
        whole: lists of layers of which it is known that they cannot be cut.

    Raises:
        ConversionError: the model cannot be built or traced.
    """
    model = build_meta(config, model_class)
    parameters = model.num_parameters()
    lengths = lengths or fixed_lengths(model, examples)
    stacks = truncate(model, whole) if cut else {}
    materialise(model)
    spec = input_spec(model, examples)
    sizes = trace_sizes(model, spec)
    try:
        exported = export(model, spec, sizes, lengths)
    except ConversionError:
        shortened = frozenset(path for path, stack in stacks.items() if stack.cut)
        if not shortened:
            raise
        # The model's own code may reach for layers by number, beyond those that were kept: those of some lists, or all.
        found = (not whole and whole_lists(config, model_class, examples, sizes)) or shortened
        return capture(config, model_class, cut, examples, lengths, whole | found)
    try:
        captured = _captured(model, exported, spec, stacks, parameters)
    except RoundsDiffer:
        exported = export(model, spec, sizes, lengths, rounds=False)
        captured = _captured(model, exported, spec, stacks, parameters)
    return replace(captured, whole=whole)


def fixed_lengths(model: PreTrainedModel, examples: Sequence[Example] = ()) -> dict[str, int]:
    """The size of each symbol where it cannot be free: that of the example, or else the one it is traced with.

    Twins have other dimensions and so other sizes in their traces; a length that is fixed is the same in all.

    Args:
        model: the whole model, on any device.
        examples: inputs that the user gave.
    """
    spec = input_spec(model, examples)
    return trace_sizes(model, spec) | (sizes_of(spec, examples[0]) if examples else {})


def _captured(model: PreTrainedModel, exported: Export, spec: tuple[Input, ...], stacks: Mapping[str, Stack],
              parameters: int) -> Captured:  # fmt: skip
    notes = restore_rates(exported.program.graph, dropout_rates(model, spec, exported.sizes))
    program = import_program(exported.program, model, exported.symbols, assignment_names(model), exported.largest)
    run = _run(program)
    stacks = {path: stack for path, stack in stacks.items() if any(name.startswith(f"{path}.") for name in run)}
    state = {
        name: tuple(tensor.shape) if tensor.is_floating_point() else tensor.numpy()
        for name, tensor in model.state_dict().items()
    }
    notes = (*exported.notes, *notes)
    return Captured(
        program, spec, exported.sizes, exported.smallest, exported.largest, exported.edges, exported.held, stacks,
        notes, state, parameters,
    )  # fmt: skip


def _run(program: Program) -> frozenset[str]:
    """The paths of the modules that a program calls, and of the parameters that it reads."""
    paths = module_paths(program)
    read = (join(paths[graph.name], node.name[1:]) for graph in program.graphs.values() for node in graph.of("param"))
    return frozenset({*paths.values(), *read})
