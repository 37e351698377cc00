"""A compiled program beside the transformers model itself, both in float64."""

import copy
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from hf2khc.capture.aten import aten_evaluator
from hf2khc.capture.constants import constant
from hf2khc.capture.frontend import Captured, capture
from hf2khc.capture.inputs import sample_inputs
from hf2khc.check.reference import outputs_float64, widen
from hf2khc.driver.compile import lower
from hf2khc.driver.depth import with_depth
from hf2khc.ir.evaluate import keras_evaluators
from hf2khc.ir.float64 import float64
from hf2khc.ir.graph import Program
from hf2khc.ir.interpret import interpret
from hf2khc.ir.validate import relative_error

torch.set_num_threads(1)
EVALUATORS = {**keras_evaluators(), "aten": aten_evaluator()}


def noisy_model(config: PreTrainedConfig, model_class: type[PreTrainedModel], seed: int = 0) -> PreTrainedModel:
    """A model with random weights of which none, bias or norm, is 0 or 1: nothing can be dropped unseen."""
    torch.manual_seed(seed)
    model = model_class(copy.deepcopy(config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.3 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5
            parameter.add_(torch.randn_like(parameter) * scale)
    return model


def unround(model: torch.nn.Module) -> None:
    """Give a widened model the frequencies and single numbers that torch rounded: the IR has them exact."""
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.from_numpy(constant(buffer.float())))


def lowered(config: PreTrainedConfig, model_class: type[PreTrainedModel]) -> tuple[Captured, Program]:
    """The capture, and the program at the keras level with all its layers."""
    captured = capture(copy.deepcopy(config), model_class)
    program = list(lower(captured.program).values())[-1]
    return captured, with_depth(program, captured.stacks, {})


def inputs_of(captured: Captured) -> Iterator[dict[str, np.ndarray]]:
    """Samples at sizes other than the traced ones, without padding and with padding on either side."""
    masked = any(entry.role == "mask" for entry in captured.spec)
    # Traces are at primes.
    lengths = {"none": (4, 9, 6), "right": (6, 10, 8), "left": (4, 14, 12)}
    for seed, padding in enumerate(lengths if masked else ("none",)):
        sizes = dict(zip(captured.sizes, lengths[padding], strict=False))
        assert not {*sizes.items()} & {*captured.sizes.items()}
        yield sample_inputs(captured.spec, sizes, seed=seed, padding=padding)


def error_against(
    model: PreTrainedModel, captured: Captured, program: Program, renamed: Mapping[str, str] = MappingProxyType({})
) -> float:
    """The largest error of the program's outputs against the model's, relative to the largest magnitude of each.

    `renamed` gives parameters of the program the values of others.
    """
    wide = copy.deepcopy(model)
    widen(wide)
    unround(wide)
    values = {**dict(wide.named_buffers()), **dict(wide.named_parameters(remove_duplicate=False))}
    worst = 0.0
    for inputs in inputs_of(captured):
        theirs = outputs_float64(wide, inputs)
        with float64():
            ours = interpret(program, inputs, lambda path: values[renamed.get(path, path)], EVALUATORS)
        for name, found in zip(program.outputs, ours, strict=True):
            worst = max(worst, relative_error(*_at_tokens(found.numpy(), theirs[name], name, inputs)))
    return worst


def _at_tokens(found: np.ndarray, expected: np.ndarray, name: str, inputs: dict[str, np.ndarray]) -> tuple:
    """Both arrays at the places that are no padding, where they have one per token."""
    decodes = "decoder_input_ids" in inputs and not name.startswith("encoder")
    mask = inputs.get("decoder_attention_mask" if decodes else "attention_mask")
    if mask is None or found.shape[:2] != mask.shape:
        return found, expected
    return found[mask == 1], expected[mask == 1]
