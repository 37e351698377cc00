"""The examples in the docstrings of the core passes, and their laws."""

import importlib
import os
import textwrap

os.environ.setdefault("KERAS_BACKEND", "torch")

import pytest

from hf2khc.ir.text import format_program, parse_program
from hf2khc.ir.verify import verify
from hf2khc.passes.core.lower_aten import lower_aten
from hf2khc.passes.core.normalize import normalize

PASSES = ("normalize", "lower_attention", "lower_convolution", "lower_indexing", "lower_splits", "lower_aten")


def example(function) -> tuple[str, str]:
    """IR before and after from a docstring."""
    before, after = textwrap.dedent("    " + function.__doc__).split("Before:")[1].split("After:")
    return tuple(textwrap.dedent(part.split("Raises:")[0]).strip() + "\n" for part in (before, after))


@pytest.mark.parametrize("name", PASSES)
def test_docstring_shows_what_the_pass_does(name):
    function = getattr(importlib.import_module(f"hf2khc.passes.core.{name}"), name)
    before, after = example(function)
    assert format_program(function(parse_program(before))) == after
    verify(parse_program(after), None)


def test_lowering_keeps_names_types_and_origins():
    program = parse_program(example(lower_aten)[0])
    lowered = lower_aten(program)
    old, new = program.main["y"], lowered.main["y"]
    assert (old.name, old.type, old.loc) == (new.name, new.type, new.loc)
    made = [node for node in lowered.main if node.op.startswith("ops.")]
    assert made and all(node.origin == {"y", "linear"} for node in made)


@pytest.mark.parametrize(
    "call",
    ["aten.to(%x, dtype=\"float32\")", "aten.clone(%x)", "aten.slice(%x, dim=1, end=9223372036854775807)",
     "aten.expand(%x, size=(-1, seq))", "aten.add(%x, other=0)", "aten.div(%x, other=1.0)",
     "aten.dropout(%x, p=0.0, train=false)"],
)  # fmt: skip
def test_normalize_drops(call):
    assert "aten" not in format_program(normalize(one(call, "f32[batch, seq]")))


@pytest.mark.parametrize(
    ("call", "result"),
    [("aten.to(%x, dtype=\"float16\")", "f16[batch, seq]"), ("aten.add(%x, other=1)", "f32[batch, seq]"),
     ("aten.slice(%x, dim=1, step=-1)", "f32[batch, seq]"), ("aten.mul(%x, other=0)", "f32[batch, seq]"),
     ("aten.dropout(%x, p=0.1, train=false)", "f32[batch, seq]"), ("aten.add(%x, %x)", "f32[batch, seq]"),
     ("aten.view(%x, size=(seq, batch))", "f32[seq, batch]")],
)  # fmt: skip
def test_normalize_keeps(call, result):
    assert call.split("(")[0] in format_program(normalize(one(call, result)))


def one(call: str, result: str):
    """A program of one node over `x: f32[batch, seq]`."""
    lines = (
        "graph G(%x: f32[batch, seq]) {",
        f"%y: {result} = {call}",
        f"%z: {result} = ops.tanh(%y)",
        "return %z",
        "}",
    )
    return parse_program("\n".join([*lines, "entry G", ""]))
