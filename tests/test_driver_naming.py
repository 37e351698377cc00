"""Names of constructor arguments."""

from hf2khc.driver.naming import _constants
from hf2khc.ir.text import parse_program

PROGRAM = """graph Table(%x: i64[batch]) {
  const @weights: f32[2]
  %y: f32[batch] = ops.take(@weights, %x, axis=0)
  return %y
}

graph Model(%x: i64[batch]) {
  const @weights: f32[2]
  %y: f32[batch] = call(%x, graph="Table", path="table")
  %z: f32[batch] = ops.take(@weights, %x, axis=0)
  return %y, %z
}

entry Model
constant @weights: f32[2] = (0.0, 1.0)
constant @table.weights: f32[2] = (0.0, 1.0)
"""


def test_a_constant_takes_no_name_of_keras_own():
    """`weights` is a property of every layer: nothing can be assigned to it."""
    names = [name for name, _ in _constants(parse_program(PROGRAM), set()).values()]
    assert sorted(names) == ["constant_weights", "table_weights"]
