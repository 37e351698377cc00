"""What --explain says of the modules of a model."""

from hf2khc.driver.modules import modules
from hf2khc.ir.text import parse_program

PROGRAM = """
graph Block(%x: f32[batch, seq, 8]) {
  param @fc.weight: f32[8, 8]
  %w: f32[8, 8] = ops.transpose(@fc.weight)
  %h: f32[batch, seq, 8] = layers.Dense(%x, %w, units=8, use_bias=false, name="query")
  %y: f32[batch, seq, 8] = ops.relu(%h)
  return %y
}

graph Model(%x: f32[batch, seq, 8]) {
  %y: f32[batch, seq, 8] = loop(%x, graph="Block", path="layers.{i}", start=0, count=2, carry=1, name="layer_{i}")
  return %y
}

entry Model
"""


def test_a_row_for_every_module_that_became_something():
    program = parse_program(PROGRAM.lstrip())
    assert [(row.path, row.became) for row in modules(program)] == [
        ("", "Model"),
        ("layers.{i}", "Block layer_{i}"),
        ("layers.{i}.fc", "keras.layers.Dense query"),
    ]


def test_rules_are_the_origins_that_are_passes_or_rules():
    program = parse_program(PROGRAM.lstrip())
    graph = program.graphs["Block"]
    origin = frozenset({"linear_1", "recognize_linear", "rms_normalization"})
    nodes = [node if node.name != "h" else type(node)(**{**vars(node), "origin": origin}) for node in graph]
    rows = modules(program.with_graphs([graph.replaced(nodes), program.main]))
    assert rows[-1].rules == ("recognize_linear", "rms_normalization")
