"""Complex numbers as pairs of real ones, across calls and in constants."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

from dataclasses import replace

import numpy as np
import pytest

from hf2khc.capture.aten import aten_evaluator
from hf2khc.diagnostics import ConversionError
from hf2khc.ir.evaluate import keras_evaluators
from hf2khc.ir.text import parse_program
from hf2khc.ir.types import tensors
from hf2khc.ir.validate import validate
from hf2khc.ir.verify import verify
from hf2khc.passes.core.lower_aten import lower_aten

EVALUATORS = {**keras_evaluators(), "aten": aten_evaluator()}
RANDOM = np.random.default_rng(0)
INPUTS = {"x": RANDOM.normal(size=(3, 4, 2)), "y": RANDOM.normal(size=(3, 4, 2)), "r": RANDOM.normal(size=(3, 4))}

CALLS = [
    "%z: c64[batch, 4] = aten.mul(%a, %b)",
    "%z: c64[batch, 4] = aten.mul(%a, %r)",
    "%z: c64[batch, 4] = aten.mul(%r, %a)",
    "%z: c64[batch, 4] = aten.mul(%a, other=2.5)",
    "%z: c64[batch, 4] = aten.add(%a, %b)",
    "%t: c64[batch, 4] = aten._conj(%a)\n  %z: c64[batch, 4] = aten.resolve_conj(%t)",
    "%z: c64[batch, 4] = aten.polar(%r, %r)",
    "%z: c64[batch, 4] = aten.complex(%r, %r)",
    "%z: c64[batch, 1, 4] = aten.unsqueeze(%a, dim=-2)",
    "%z: c64[4, batch] = aten.transpose(%a, dim0=-1, dim1=-2)",
    "%z: c64[batch, 2, 2] = aten.view(%a, size=(batch, 2, 2))",
    "%z: c64[2, batch, 4] = aten.expand(%a, size=(2, -1, -1))",
    "%z: c64[batch, 8] = aten.cat(%a, %b, dim=-1)",
    "%z: c64[batch, 4] = aten.fft_fft(%a)",
    "%z: c64[batch, 4] = aten.fft_fft(%r, dim=0)",
    "%z: c64[batch, 4] = aten.fft_fft2(%r)",
    "%z: c64[batch, 4] = aten.fft_fftn(%a)",
    "%z: c64[batch, 4] = aten.fft_fftn(%r, dim=(1,))",
    "%z: c64[batch, 4] = aten.fft_ifft2(%a)",
    "%z: c64[batch, 3] = aten.fft_rfft(%r)",
    "%z: c64[2, 4] = aten.fft_rfft(%r, n=3, dim=0)",
    "%i: f32[batch, 6] = aten.fft_irfft(%a, n=6)\n  %z: c64[batch, 6] = aten.complex(%i, %i)",
    "%z: c64[batch, 2] = aten.slice(%a, dim=-1, start=2)",
]


def program(call: str):
    shape = call.split("c64[")[1].split("]")[0]
    return parse_program(
        "graph G(%x: f32[batch, 4, 2], %y: f32[batch, 4, 2], %r: f32[batch, 4]) {\n"
        "  %a: c64[batch, 4] = aten.view_as_complex(%x)\n  %b: c64[batch, 4] = aten.view_as_complex(%y)\n"
        f"  {call}\n  %s: f32[{shape}, 2] = aten.view_as_real(%z)\n  return %s\n}}\nentry G\n"
    )


@pytest.mark.parametrize("call", CALLS)
def test_complex_op(call):
    lowered = lower_aten(program(call))
    verify(lowered, "ops")
    assert not any("complex" in type_.dtype for node in lowered.main for type_ in tensors(node.type))
    validate(program(call), lowered, INPUTS, {}.__getitem__, EVALUATORS)


@pytest.mark.parametrize("call", ["real", "imag", "abs"])
def test_part_of_a_complex_number(call):
    before = parse_program(
        "graph G(%x: f32[batch, 4, 2]) {\n  %a: c64[batch, 4] = aten.view_as_complex(%x)\n"
        f"  %s: f32[batch, 4] = aten.{call}(%a)\n  return %s\n}}\nentry G\n"
    )
    validate(before, lower_aten(before), {"x": INPUTS["x"]}, {}.__getitem__, EVALUATORS)


def test_complex_constants_and_arguments_of_layers():
    before = parse_program(
        "graph Turn(%a: c64[batch, 4], %t: c64[4]) {\n  %z: c64[batch, 4] = aten.mul(%a, %t)\n  return %z\n}\n"
        "graph G(%x: f32[batch, 4, 2]) {\n  const @table: c64[4]\n  %a: c64[batch, 4] = aten.view_as_complex(%x)\n"
        '  %z: c64[batch, 4] = call(%a, @table, graph="Turn", path="turn")\n'
        "  %s: f32[batch, 4, 2] = aten.view_as_real(%z)\n  return %s\n}\nentry G\n"
    )
    before = replace(before, constants={"table": (RANDOM.normal(size=4) + 1j * RANDOM.normal(size=4))})
    lowered = lower_aten(before)
    verify(lowered, "ops")
    validate(before, lowered, {"x": INPUTS["x"]}, {}.__getitem__, EVALUATORS)


def test_an_op_on_complex_numbers_without_a_lowering_is_an_error():
    with pytest.raises(ConversionError, match=r"aten.tanh of complex numbers"):
        lower_aten(program("%z: c64[batch, 4] = aten.tanh(%a)"))
