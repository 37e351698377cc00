"""What the report says of the source."""

from hf2khc.driver.fill import core_share
from hf2khc.driver.source_metrics import hand_written_lines, source_metrics
from hf2khc.ir.text import parse_program
from hf2khc.weights.rows import Row

SOURCE = '''
def call(self, x, size=64):
    """Of 99."""
    return x.reshape(8, -1, 2) + 128.0
'''
PROGRAM = """
graph Block(%x: f32[batch, 8]) {
  return %x
}

graph Model(%x: f32[batch, 8]) {
  %a: f32[batch, 8] = call(%x, graph="Block", path="layers.0")
  %b: f32[batch, 8] = loop(%a, graph="Block", path="layers.{i}", start=1, count=2, carry=1)
  return %b
}

entry Model
"""


def test_source_metrics() -> None:
    found = source_metrics({"a/b.py": SOURCE, "a/b_test.py": "x = 7\n"}, parse_program(PROGRAM), "no_such_model")
    assert found == {"lines": 4, "test_lines": 1, "unrolled_layers": 1, "literal_dimensions": 1}


def test_hand_written_lines_count_what_a_backbone_needs() -> None:
    own, shared = hand_written_lines("llama").values()
    # The backbone alone has 300; attention, decoder and norm stand in files beside it.
    assert 600 < own < 2000 and 100 < shared < 2000
    assert hand_written_lines("no_such_model") == {} == hand_written_lines("../gpt2")


def test_core_share() -> None:
    parameters = [Row("a/kernel", ("a",), "x", (3, 5), "float32"), Row("b", ("b",), "x", (5,), "float32")]
    others = [Row("index", ("c",), "x", (9,), "int32"), Row("table", (), "x", (9,), "float32", constant="table")]
    rows = [*parameters, *others]
    assert core_share(rows, {"a/kernel"}) == 0.75
