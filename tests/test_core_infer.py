"""Types of new nodes."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import pytest

from hf2khc.diagnostics import ConversionError
from hf2khc.ir.float64 import float64
from hf2khc.ir.infer import infer
from hf2khc.ir.text import parse_program

CASES = [
    ("x: f32[batch, seq, 4]", "ops.transpose(%x, axes=(0, 2, 1))", "f32[batch, 4, seq]"),
    ("x: f32[batch, seq, 4]", "ops.reshape(%x, newshape=(batch, seq, 2, 2))", "f32[batch, seq, 2, 2]"),
    ("x: f32[batch, seq, 4]", "ops.reshape(%x, newshape=(batch, -1))", "f32[batch, seq * 4]"),
    ("x: f32[batch, seq, 4]", "ops.reshape(%x, newshape=(-1, 4))", "f32[batch * seq, 4]"),
    ("x: f32[batch, seq, 4], y: f32[4, 6]", "ops.matmul(%x, %y)", "f32[batch, seq, 6]"),
    ("x: f32[batch, seq, 4], y: f32[batch, 3, 4]", "ops.concatenate(%x, %y, axis=1)", "f32[batch, seq + 3, 4]"),
    ("x: f32[batch, seq], y: f32[seq, other]", "ops.einsum(%x, %y, subscripts=\"ij,jk->ki\")", "f32[other, batch]"),
    ("x: f32[batch, seq]", "ops.get_item(%x, key=(\"ellipsis\", (\"slice\", 1, none, none)))", "f32[batch, seq - 1]"),
    ("x: f32[1, 64]", "ops.get_item(%x, key=(\"ellipsis\", (\"slice\", none, seq, none)))", "f32[1, seq]"),
    ("x: f32[batch, seq]", "ops.get_item(%x, key=(0, \"newaxis\"))", "f32[1, seq]"),
    ("x: f32[batch, seq]", "ops.get_item(%x, key=((\"slice\", none, none, none), -1))", "f32[batch]"),
    ("x: f32[batch, seq]", "ops.pad(%x, pad_width=((0, 0), (1, 2)))", "f32[batch, seq + 3]"),
    ("x: f32[batch, seq]", "ops.pad(%x, pad_width=((0, 0), (0, (5 + -1 * (seq % 5)) % 5)))",
     "f32[batch, seq + (5 + -1 * (seq % 5)) % 5]"),
    ("x: f32[batch, seq]", "ops.repeat(%x, repeats=3, axis=1)", "f32[batch, seq * 3]"),
    ("x: f32[batch, seq, 4], y: f32[3, 4, 6]",
     "ops.conv(%x, %y, strides=2, data_format=\"channels_last\")", "f32[batch, (seq - 3) // 2 + 1, 6]"),
    ("x: i64[batch, seq]", "ops.add(%x, x2=1)", "i64[batch, seq]"),
    ("x: i64[batch, seq]", "ops.sum(%x, axis=1)", "i64[batch]"),
    ("x: i64[batch, seq]", "ops.multiply(%x, x2=0.5)", "f32[batch, seq]"),
    ("x: f32[batch, seq]", "ops.subtract(_, %x, x1=1)", "f32[batch, seq]"),
    ("x: f32[batch, seq]", "ops.argmax(%x, axis=1)", "i64[batch]"),
    ("x: f32[batch, seq]", "ops.less(%x, x2=0.5)", "bool[batch, seq]"),
    ("x: f32[batch, seq]", "ops.arange(start=1, stop=seq, dtype=\"int64\")", "i64[seq - 1]"),
    ("x: f32[batch, seq, 4, 8], y: f32[batch, seq, 2, 8], z: f32[batch, seq, 2, 6]",
     "ops.dot_product_attention(%x, %y, %z)", "f32[batch, seq, 4, 6]"),
]  # fmt: skip


def inferred(inputs: str, call: str):
    signature = "%" + inputs.replace("], ", "], %")
    graph = parse_program(f"graph G({signature}) {{\n  %r: f32[] = {call}\n  return %r\n}}\nentry G\n").main
    node = graph["r"]
    return infer(node.op, [None if o is None else graph[o].type for o in node.operands], node.attrs)


@pytest.mark.parametrize(("inputs", "call", "expected"), CASES, ids=[call for _, call, _ in CASES])
def test_type(inputs, call, expected):
    assert str(inferred(inputs, call)) == expected


def test_several_results():
    types = inferred("x: f32[batch, 6]", "ops.split(%x, indices_or_sections=(2,), axis=1)")
    assert [str(t) for t in types] == ["f32[batch, 2]", "f32[batch, 4]"]


def test_types_are_those_of_the_model_while_the_interpreter_computes_in_float64():
    with float64():
        assert str(inferred("x: f64[batch, 17]", "ops.sin(%x)")) == "f32[batch, 17]"
        assert str(inferred("x: i64[batch, 5]", "ops.divide(%x, x2=7)")) == "f32[batch, 5]"


def test_a_call_keras_rejects_is_an_error():
    with pytest.raises(ConversionError, match="does not accept"):
        inferred("x: f32[batch, 4], y: f32[5, 6]", "ops.matmul(%x, %y)")
