"""From a model to torch's ExportedProgram, through transformers' own exporter."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from transformers import PreTrainedModel
from transformers.exporters.exporter_dynamo import DynamoConfig, DynamoExporter

from hf2khc.capture.build import configs, quiet
from hf2khc.capture.input_types import Input
from hf2khc.capture.inputs import sample_inputs, symbols
from hf2khc.capture.prepared import nothing_added
from hf2khc.diagnostics import ConversionError, fail


@dataclass(frozen=True)
class Export:
    """A captured model.

    Args:
        program: torch's program; its outputs are the model's ModelOutput with `return_dict=True`.
        symbols: the name of each of torch's symbols: `{"s43": "batch", "s70": "seq"}`.
        sizes: the sizes it was traced at.
        attention: the attention implementation it was traced with.
        notes: what had to be done otherwise than planned, with the reason.
    """

    program: ExportedProgram
    symbols: dict[str, str]
    sizes: dict[str, int]
    attention: str
    notes: tuple[str, ...] = ()


def export(model: PreTrainedModel, spec: tuple[Input, ...], sizes: dict[str, int]) -> Export:
    """Traces a model with free batch and sequence sizes.

    Where torch refuses a free size it is freed as far as torch allows, then fixed; where it refuses the attention
    implementation the eager one is tried. Either is noted.

    Raises:
        ConversionError: `not-capturable` with the model's own source line.
    """
    attention = model.config._attn_implementation
    # First as it was built: each part then has what it supports, which one name for all of them would not give.
    implementations = [attention] if attention == "eager" else [attention, "eager"]
    attempts = [(implementation, kind) for implementation in implementations for kind in ("named", "auto", "static")]
    notes: list[str] = []
    first: Exception | None = None
    with _attention_kept(model):
        for implementation, kind in attempts:
            try:
                if implementation != attention:
                    model.set_attn_implementation(implementation)
                program = _trace(model, spec, sizes, kind)
            except Exception as error:
                first = first or error
                notes.append(f"{implementation} attention, {kind} sizes: {_summary(error)}")
            else:
                return Export(program, _symbol_names(program, spec), sizes, implementation, tuple(notes))
    assert first is not None
    raise _refusal(model, first) from first


@contextmanager
def _attention_kept(model: PreTrainedModel) -> Iterator[None]:
    """The attention implementation of every part is as before after the block."""
    before = [(part, part._attn_implementation) for part in configs(model.config)]
    try:
        yield
    finally:
        for part, implementation in before:
            part._attn_implementation_internal = implementation


def _trace(model: PreTrainedModel, spec: tuple[Input, ...], sizes: dict[str, int], kind: str) -> ExportedProgram:
    inputs = {name: torch.from_numpy(array) for name, array in sample_inputs(spec, sizes).items()}
    shapes = _dynamic_shapes(model, spec, kind)
    with quiet(), nothing_added():
        config = DynamoConfig(dynamic=True, dynamic_shapes=shapes, prefer_deferred_runtime_asserts_over_guards=True)
        program, _ = DynamoExporter().export_program(model, inputs, config)
    return program


def _dynamic_shapes(model: PreTrainedModel, spec: tuple[Input, ...], kind: str) -> dict[str, Any]:
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    named = {
        symbol: Dim(symbol, min=2, max=longest) if longest and symbol.endswith("seq") else Dim(symbol, min=2)
        for symbol in symbols(spec)
    }
    others: dict[str, Any] = {"auto": Dim.AUTO, "static": Dim.STATIC}
    return {
        entry.name: {
            axis: others.get(kind, named[size]) for axis, size in enumerate(entry.shape) if isinstance(size, str)
        }
        for entry in spec
    }


def _symbol_names(program: ExportedProgram, spec: tuple[Input, ...]) -> dict[str, str]:
    shapes = {entry.name: entry.shape for entry in spec}
    names: dict[str, str] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in shapes and isinstance(node.meta["val"], torch.Tensor):
            for size, symbol in zip(node.meta["val"].shape, shapes[node.name], strict=True):
                if isinstance(size, torch.SymInt) and isinstance(symbol, str):
                    names[str(size)] = symbol
    return names


def _summary(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


def _refusal(model: PreTrainedModel, error: Exception) -> ConversionError:
    location = next(iter(_places(model, error)), type(model).__name__)
    lines = [line for line in str(error).splitlines() if line.strip()]
    return fail(
        "not-capturable",
        f"torch.export does not take {type(model).__name__}: {type(error).__name__}",
        location=location,
        excerpt="\n".join(line[:160] for line in lines[:6]),
        hint="the line branches on data or uses what torch cannot trace;\n"
        "another class of the model (--task) may leave it out",
    )


def _places(model: PreTrainedModel, error: Exception) -> Iterator[str]:
    """Source lines of the model's own modules in the traceback, the innermost first."""
    paths = {id(module): name for name, module in model.named_modules()}
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    lines = [line for _, line in traceback.walk_tb(error.__traceback__)]
    for frame, line in zip(reversed(frames), reversed(lines), strict=True):
        module = _module_of(frame, paths)
        if module is not None:
            yield f"{frame.f_code.co_filename}:{line}  ({type(module).__name__}, {paths[id(module)] or 'model'})"


def _module_of(frame: FrameType, paths: dict[int, str]) -> Any:
    module = frame.f_locals.get("self")
    foreign = ("torch", "transformers.exporters")
    if id(module) not in paths or frame.f_globals.get("__name__", "").startswith(foreign):
        return None
    return module
