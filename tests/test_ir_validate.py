"""Translation validation: equal programs pass, a changed one is found and its first wrong value named."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import math

import numpy as np
import pytest

from hf2khc.capture.aten import aten_evaluator
from hf2khc.diagnostics import ConversionError
from hf2khc.ir.evaluate import keras_evaluators
from hf2khc.ir.memo import Memo
from hf2khc.ir.text import parse_program
from hf2khc.ir.validate import relative_error, validate

# As the passes are validated: what was computed for one test is there for the next.
MEMO = Memo()
EVALUATORS = {level: MEMO.over(evaluator) for level, evaluator in keras_evaluators().items()}
EVALUATORS["aten"] = aten_evaluator()
RANDOM = np.random.default_rng(0)
WEIGHTS = {f"layers.{i}.{n}": RANDOM.normal(size=s) for i in range(3) for n, s in (("w", (4, 4)), ("b", (4,)))}
X = RANDOM.normal(size=(2, 3, 4))

BEFORE = """
graph Layer(%x: f32[batch, seq, 4]) {
  param @w: f32[4, 4]
  param @b: f32[4]
  %h: f32[batch, seq, 4] = aten.linear(%x, @w, @b)
  %g: f32[batch, seq, 4] = aten.gelu(%h)
  %n: f32[batch, seq, 4] = aten.layer_norm(%g, normalized_shape=(4,), eps=0.000001)
  %y: f32[batch, seq, 4] = aten.add(%x, %n)
  return %y
}

graph Model(%x: f32[batch, seq, 4]) {
  %a: f32[batch, seq, 4] = call(%x, graph="Layer", path="layers.0")
  %b: f32[batch, seq, 4] = call(%a, graph="Layer", path="layers.1")
  %c: f32[batch, seq, 4] = call(%b, graph="Layer", path="layers.2")
  %top: i64[batch, seq] = aten.argmax(%c, dim=-1)
  return %c, %top
}

entry Model returns "last_hidden_state", "top"
"""

AFTER = """
graph Layer(%x: f32[batch, seq, 4]) {
  param @w: f32[4, 4]
  param @b: f32[4]
  %t: f32[4, 4] = ops.transpose(@w)
  %h: f32[batch, seq, 4] = layers.Dense(%x, %t, @b, units=4)
  %g: f32[batch, seq, 4] = ops.gelu(%h, approximate=false)
  %mean: f32[batch, seq, 1] = ops.mean(%g, axis=-1, keepdims=true)
  %variance: f32[batch, seq, 1] = ops.var(%g, axis=-1, keepdims=true)
  %centred: f32[batch, seq, 4] = ops.subtract(%g, %mean)
  %wide: f32[batch, seq, 1] = ops.add(%variance, x2=0.000001)
  %scale: f32[batch, seq, 1] = ops.rsqrt(%wide)
  %n: f32[batch, seq, 4] = ops.multiply(%centred, %scale)
  %y: f32[batch, seq, 4] = ops.add(%x, %n)
  return %y
}

graph Model(%x: f32[batch, seq, 4]) {
  %c: f32[batch, seq, 4] = loop(%x, graph="Layer", path="layers.{i}", start=0, count=3, carry=1)
  %top: i64[batch, seq] = ops.argmax(%c, axis=-1)
  return %c, %top
}

entry Model returns "last_hidden_state", "top"
"""


def check(after, before=BEFORE, **options):
    return validate(parse_program(before), parse_program(after), {"x": X}, WEIGHTS.__getitem__, EVALUATORS, **options)


def test_a_translation_agrees_to_float64():
    assert check(AFTER) < 1e-14
    assert check(BEFORE) == 0.0


MUTATIONS = [
    ("approximate=false", "approximate=true", "%g"),
    ("x2=0.000001", "x2=0.00001", "%n"),
    ("ops.add(%x, %n)", "ops.subtract(%x, %n)", "%y"),
    ("%h: f32[batch, seq, 4] = layers.Dense(%x, %t, @b, units=4)",
     "%h: f32[batch, seq, 4] = layers.Dense(%x, %t, units=4, use_bias=false)", "%h"),
    ("layers.Dense(%x, %t, @b", "layers.Dense(%x, @w, @b", "%h"),
    ("ops.var(%g", "ops.std(%g", "%n"),
    ("start=0, count=3", "start=0, count=2", "%c"),
    ("ops.argmax", "ops.argmin", "%top"),
]  # fmt: skip


@pytest.mark.parametrize("old, new, culprit", MUTATIONS, ids=[m[1][:24] for m in MUTATIONS])
def test_every_mutation_is_a_miscompile(old, new, culprit):
    assert AFTER.count(old) == 1
    with pytest.raises(ConversionError) as caught:
        check(AFTER.replace(old, new), name="lower_layers")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "miscompile" and "lower_layers changed the output" in diagnostic.message
    assert diagnostic.excerpt.splitlines()[1].startswith(culprit + ":")


def test_the_output_and_the_place_are_named():
    with pytest.raises(ConversionError) as caught:
        check(AFTER.replace("ops.argmax", "ops.argmin"))
    assert "output top by inf" in caught.value.diagnostics[0].message
    with pytest.raises(ConversionError) as caught:
        check(AFTER.replace("approximate=false", "approximate=true"))
    assert caught.value.diagnostics[0].location == "(layers.0)"
    with pytest.raises(ConversionError, match="1 outputs of 2"):
        check(AFTER.replace("return %c, %top", "return %c").replace(', "top"', ""))


def test_relative_error():
    assert relative_error([1.0, 4.0], [1.0, 2.0]) == 1.0
    assert relative_error([1.0, math.nan], [1.0, math.nan]) == 0.0
    assert relative_error([math.nan, 1.0], [1.0, math.nan]) == math.inf
    assert relative_error([1.0, -math.inf], [1.0, -math.inf]) == 0.0
    assert relative_error([1.0, math.inf], [1.0, -math.inf]) == math.inf
    assert relative_error([1.0, -math.inf], [1.0, -1e30]) == math.inf
    assert relative_error([1, 2], [1, 3]) == math.inf
    assert relative_error([True], [True]) == 0.0
    assert relative_error([[1.0]], [1.0]) == math.inf
    assert relative_error([1e-3], [0.0]) == math.inf
    assert relative_error([0.0], [0.0]) == 0.0
    assert relative_error([], []) == 0.0
    assert relative_error([1.0], [1]) == math.inf
    assert relative_error([1], [True]) == math.inf
    assert relative_error(np.uint8([1]), [1]) == 0.0
