"""The interpreter on hand-written programs, at every level."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest
import torch

from hf2khc.capture.aten import aten_evaluator
from hf2khc.diagnostics import ConversionError
from hf2khc.ir.evaluate import keras_evaluators
from hf2khc.ir.interpret import interpret
from hf2khc.ir.text import parse_program

EVALUATORS = {**keras_evaluators(), "aten": aten_evaluator()}
RANDOM = np.random.default_rng(0)


def run(text, inputs, parameters=None, **options):
    values = interpret(parse_program(text), inputs, (parameters or {}).__getitem__, EVALUATORS, **options)
    return [np.asarray(value) for value in values]


def normal(*shape):
    return RANDOM.normal(size=shape)


MLP = """
graph Block<gain>(%x: f32[batch, 4]) {
  param @dense.weight: f32[4, 4]
  param @dense.bias: f32[4]
  const @table: f32[4]
  %h: f32[batch, 4] = aten.linear(%x, @dense.weight, @dense.bias)
  %t: f32[batch, 4] = aten.tanh(%h)
  %s: f32[batch, 4] = aten.mul(%t, other=gain)
  %y: f32[batch, 4] = aten.add(%s, @table)
  return %y
}

graph Model(%x: f32[batch, 4]) {
  %a: f32[batch, 4] = call(%x, graph="Block", path="first", gain=2.0)
  %b: f32[batch, 4] = call(%a, graph="Block", path="second", gain=batch)
  %c: f32[batch, 4] = call(%b, graph="Block", path="first", gain=2.0)
  return %c
}

entry Model returns "out"
constant @first.table: f32[4] = (1.0, 2.0, 3.0, 4.0)
constant @second.table: f32[4] = (0.0, 0.0, 0.0, 0.5)
"""


def test_calls_share_weights_by_path():
    x = normal(3, 4)
    p = {f"{n}.dense.{k}": normal(4, 4) if k == "weight" else normal(4) for n in ("first", "second")
         for k in ("weight", "bias")}  # fmt: skip

    def block(v, name, gain, table):
        return np.tanh(v @ p[f"{name}.dense.weight"].T + p[f"{name}.dense.bias"]) * gain + np.asarray(table)

    expected = block(x, "first", 2.0, [1, 2, 3, 4])
    expected = block(expected, "second", 3, [0, 0, 0, 0.5])
    expected = block(expected, "first", 2.0, [1, 2, 3, 4])
    (found,) = run(MLP, {"x": x}, p)
    assert np.abs(found - expected).max() < 1e-14


LOOP = """
graph Layer<window>(%x: f32[batch, seq, 4], %n: i64[batch], %bias: f32[4]) {
  param @w: f32[4]
  param @/shared.w: f32[4]
  %a: f32[batch, seq, 4] = ops.multiply(%x, @w)
  %b: f32[batch, seq, 4] = ops.add(%a, %bias)
  %c: f32[batch, seq, 4] = ops.multiply(%b, x2=window)
  %y: f32[batch, seq, 4] = ops.add(%c, @/shared.w)
  %m: i64[batch] = ops.add(%n, x2=1)
  return %y, %m
}

graph Model(%x: f32[batch, seq, 4], %n: i64[batch], %bias: f32[4]) {
  %o: (f32[batch, seq, 4], i64[batch]) = loop(%x, %n, %bias, graph="Layer", path="layers.{i}", start=1, count=3,
    carry=2, window=(1.0, 2.0, 4.0))
  %y: f32[batch, seq, 4] = item(%o, index=0)
  %m: i64[batch] = item(%o, index=1)
  return %y, %m
}

entry Model
"""


def test_loop_carries_and_parametrises():
    x, bias, shared = normal(2, 5, 4), normal(4), normal(4)
    p = {**{f"layers.{i}.w": normal(4) for i in (1, 2, 3)}, "shared.w": shared}
    expected = x
    for i, window in zip((1, 2, 3), (1.0, 2.0, 4.0), strict=True):
        expected = (expected * p[f"layers.{i}.w"] + bias) * window + shared
    y, m = run(LOOP, {"x": x, "n": np.array([1, 5]), "bias": bias}, p)
    assert np.abs(y - expected).max() < 1e-14 and m.tolist() == [4, 8]


SCAN = """
graph Step(%state: f32[batch, 4], %count: i64[batch], %entry: f32[batch, 4], %bias: f32[4]) {
  param @w: f32[4]
  %a: f32[batch, 4] = ops.multiply(%state, @w)
  %b: f32[batch, 4] = ops.add(%a, %bias)
  %next: f32[batch, 4] = ops.add(%b, %entry)
  %m: i64[batch] = ops.add(%count, x2=1)
  return %next, %m
}

graph Model(%start: f32[batch, 4], %n: i64[batch], %x: f32[seq, batch, 4], %bias: f32[4]) {
  %o: (f32[seq, batch, 4], i64[seq, batch]) = scan(%start, %n, %x, %bias, graph="Step", path="step", carry=2, over=1)
  %y: f32[seq, batch, 4] = item(%o, index=0)
  %m: i64[seq, batch] = item(%o, index=1)
  return %y, %m
}

entry Model
"""


def test_scan_keeps_what_it_carries_at_every_entry():
    start, x, bias, w = normal(2, 4), normal(3, 2, 4), normal(4), normal(4)
    states = [start]
    for entry in x:
        states.append(states[-1] * w + bias + entry)
    y, m = run(SCAN, {"start": start, "n": np.array([0, 5]), "x": x, "bias": bias}, {"step.w": w})
    assert np.abs(np.asarray(y) - np.stack(states[1:])).max() < 1e-14
    assert np.asarray(m).tolist() == [[1, 6], [2, 7], [3, 8]]


SYMBOLS = """
graph Tail(%x: f32[batch, seq + 1]) {
  %y: f32[batch, seq + 1] = aten.add(%x, other=seq)
  return %y
}

graph Model(%x: f32[batch, seq], %e: f32[batch, 1]) {
  %j: f32[batch, seq + 1] = aten.cat(%x, %e, dim=1)
  %t: f32[batch, seq + 1] = call(%j, graph="Tail", path="")
  %y: f32[batch, seq + 1] = aten.mul(%t, other=config.scale)
  return %y
}

entry Model
"""


def test_symbols_of_compound_dimensions_come_from_the_caller():
    x, e = normal(2, 3), normal(2, 1)
    (found,) = run(SYMBOLS, {"x": x, "e": e}, env={"config.scale": 2})
    assert np.array_equal(found, (np.concatenate([x, e], 1) + 3) * 2)
    with pytest.raises(ConversionError, match=r"nothing binds the name config\.scale"):
        run(SYMBOLS, {"x": x, "e": e})


def program(line, result, inputs="%x: f32[batch, seq, 4]", leaves=""):
    return f"graph M({inputs}) {{\n{leaves}\n  %y: {result} = {line}\n  return %y\n}}\nentry M\n"


def one(line, result, x, inputs="%x: f32[batch, seq, 4]", leaves="", **parameters):
    return run(program(line, result, inputs, leaves), {"x": x}, parameters)[0]


def test_keras_ops():
    x = normal(2, 3, 4)
    assert np.array_equal(one('ops.get_item(%x, key=("ellipsis", ("slice", 0, 4, 2), "newaxis"))',
                              "f32[batch, seq, 2, 1]", x), x[..., 0:4:2, None])  # fmt: skip
    assert np.array_equal(one("ops.get_item(%x, key=(0, -1))", "f32[4]", x), x[0, -1])
    twice = one("ops.concatenate(%x, %x, axis=1)", "f32[batch, 2 * seq, 4]", x)
    assert np.array_equal(twice, np.concatenate([x, x], 1))
    assert np.array_equal(one("ops.stack(%x, %x, axis=0)", "f32[2, batch, seq, 4]", x), np.stack([x, x]))
    found = one('ops.einsum(%x, %x, subscripts="bsi,bti->bst")', "f32[batch, seq, seq]", x)
    assert np.abs(found - np.einsum("bsi,bti->bst", x, x)).max() < 1e-14
    assert np.array_equal(one('ops.cast(%x, dtype="float32")', "f32[batch, seq, 4]", x), x)
    assert np.array_equal(one("ops.where(%x, _, %x, x1=7.0)", "bool[2]", x=np.array([True, False]),
                              inputs="%x: bool[2]"), np.array([7.0, 0.0]))  # fmt: skip


def test_keras_layers():
    x = normal(2, 3, 4)
    w, b = normal(4, 8), normal(8)
    leaves = "  param @w: f32[4, 8]\n  param @b: f32[8]"
    found = one("layers.Dense(%x, @w, @b, units=8)", "f32[batch, seq, 8]", x, leaves=leaves, w=w, b=b)
    assert np.abs(found - (x @ w + b)).max() < 1e-14
    found = one("layers.Dense(%x, @w, units=8, use_bias=false)", "f32[batch, seq, 8]", x, leaves=leaves, w=w, b=b)
    assert np.abs(found - x @ w).max() < 1e-14
    e = normal(8, 4)
    found = one("layers.ReversibleEmbedding(%x, @e, input_dim=8, output_dim=4, reverse=true)", "f32[batch, seq, 8]", x,
                leaves="  param @e: f32[8, 4]", e=e)  # fmt: skip
    assert np.abs(found - x @ e.T).max() < 1e-14
    g, b = normal(4), normal(4)
    found = one("layers.LayerNormalization(%x, @g, @b, epsilon=0.00001)", "f32[batch, seq, 4]", x,
                leaves="  param @g: f32[4]\n  param @b: f32[4]", g=g, b=b)  # fmt: skip
    expected = torch.nn.functional.layer_norm(*map(torch.as_tensor, (x,)), (4,), *map(torch.as_tensor, (g, b)))
    assert np.abs(found - expected.numpy()).max() < 1e-14
    assert np.array_equal(one("layers.Dropout(%x, rate=0.5)", "f32[batch, seq, 4]", x), x)
    assert np.array_equal(one("layers.Add(%x, %x)", "f32[batch, seq, 4]", x), 2 * x)


def test_attention_layer_finds_its_inputs_among_the_operands():
    x = normal(2, 3, 4)
    layer = "layers.MultiHeadAttention(%x, %x, {}, num_heads=2, key_dim=2, use_bias=false)"
    shapes = {"q": (4, 2, 2), "k": (4, 2, 2), "v": (4, 2, 2), "o": (2, 2, 4)}
    p = {name: normal(*shape) for name, shape in shapes.items()}
    leaves = "\n".join(f"  param @{n}: f32[{', '.join(map(str, s))}]" for n, s in shapes.items())
    two = one(layer.format("@q, @k, @v, @o"), "f32[batch, seq, 4]", x, leaves=leaves, **p)
    three = one(layer.format("%x, @q, @k, @v, @o"), "f32[batch, seq, 4]", x, leaves=leaves, **p)
    assert np.array_equal(two, three)


def test_float32_casts_keep_float64():
    x = normal(2, 3, 4)
    assert np.array_equal(one('aten.to(%x, dtype="float32")', "f32[batch, seq, 4]", x), x)
    found = one('aten.softmax(%x, dim=-1, dtype="float32")', "f32[batch, seq, 4]", x)
    assert found.dtype == np.float64 and np.abs(found.sum(-1) - 1).max() < 1e-15
    assert one('aten.full(size=(2,), fill_value=0.1, dtype="float32")', "f32[2]", x)[0] == 0.1
    assert one("aten.full(size=(2,), fill_value=0.1)", "f32[2]", x)[0] == 0.1
    assert one('ops.full(shape=(2,), fill_value=0.1, dtype="float32")', "f32[2]", x)[0] == 0.1


@pytest.mark.parametrize(
    "line, result, message",
    [
        ("aten.relu(%x)", "f32[batch, 4, seq]", r"gave \[2, 3, 4\] where \[2, 4, 3\] is declared"),
        ("aten.relu(%x)", "(f32[batch, seq, 4], f32[4])", "is declared"),
        ("ops.matmul(%x, %x)", "f32[batch, seq, seq]", "failed on shapes"),
        ("ops.no_such_op(%x)", "f32[batch, seq, 4]", "Keras has no"),
        ("layers.NoSuchLayer(%x)", "f32[batch, seq, 4]", "Keras has no"),
        ("layers.Dense(%x, %x, units=4)", "f32[batch, seq, 4]", "does not take 2 operands"),
        ("hub.no_such_idiom(%x)", "f32[batch, seq, 4]", "there is no"),
        ("ops.relu(%x, %x)", "f32[batch, seq, 4]", "2 operands for the parameters"),
        ("ops.add(%x, %x, x2=1)", "f32[batch, seq, 4]", "x2 given as an operand and as an attribute"),
        ("foo.relu(%x)", "f32[batch, seq, 4]", "no evaluator"),
        ("aten.view(%x, dtype=\"int32\")", "i32[batch, seq, 4]", "reinterprets bits"),
    ],
)  # fmt: skip
def test_failures_name_the_node(line, result, message):
    with pytest.raises(ConversionError, match=message):
        one(line, result, normal(2, 3, 4))


def test_missing_values_are_named():
    with pytest.raises(ConversionError, match="no value for the inputs x of M"):
        run(program("aten.relu(%x)", "f32[batch, seq, 4]"), {})
    with pytest.raises(ConversionError, match="no values for the constant c"):
        one("aten.add(%x, @c)", "f32[batch, seq, 4]", normal(2, 3, 4), leaves="  const @c: f32[100]")


def test_observer_sees_every_value():
    seen = []
    run(MLP, {"x": normal(3, 4)}, {f"{n}.dense.{k}": np.zeros((4, 4) if k == "weight" else 4)
                                   for n in ("first", "second") for k in ("weight", "bias")},
        observe=lambda graph, path, node, value: seen.append((path, node.name)))  # fmt: skip
    assert ("first", "h") in seen and ("second", "@dense.weight") in seen and ("", "c") in seen


def test_what_nobody_reads_of_several_results_has_no_shape_to_keep():
    """The offsets that a bag of embeddings returns are as many as each of torch's kernels likes."""
    text = """
graph Bags(%table: f32[5, 2], %places: i64[6], %first: i64[3]) {{
  %bags: ({sums}, i64[0], i64[3], i64[3]) = aten.embedding_bag(%table, %places, %first, mode=0)
  %y: {sums} = item(%bags, index=0)
  return %y
}}
entry Bags
"""
    table, places, first = normal(5, 2), np.array([0, 1, 2, 3, 4, 0]), np.array([0, 2, 4])
    inputs = {"table": table, "places": places, "first": first}
    (sums,) = run(text.format(sums="f32[3, 2]"), inputs)
    np.testing.assert_allclose(sums, table[places].reshape(3, 2, 2).sum(1))
    with pytest.raises(ConversionError, match="wrong-shape"):
        run(text.format(sums="f32[2, 3]"), inputs)
