"""The verifier: a sound program passes, and every mutation of it is found and shown at its place."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

from dataclasses import replace

import pytest

from hf2khc.diagnostics import ConversionError
from hf2khc.ir.expr import Expr
from hf2khc.ir.graph import Graph, Node
from hf2khc.ir.text import parse_program
from hf2khc.ir.types import Tensor
from hf2khc.ir.verify import verify

SOUND = """
graph Layer<window>(%x: f32[rows, seq, 4], %mask: bool[rows, 1, seq, seq]) {
  param @kernel: f32[4, 8]
  param @scale: f32[4]
  %n: f32[rows, seq, 4] = hub.rms_norm(%x, @scale, epsilon=0.000001)
  %h: f32[rows, seq, 8] = layers.Dense(%n, @kernel, units=8, use_bias=false)
  %s: (f32[rows, seq, 4], f32[rows, seq, 4]) = ops.split(%h, indices_or_sections=2, axis=-1)
  %a: f32[rows, seq, 4] = item(%s, index=0)
  %b: f32[rows, seq, 4] = item(%s, index=1)
  %m: f32[rows, seq, 4] = ops.multiply(%b, x2=window)
  %y: f32[rows, seq, 4] = ops.where(%mask, %a, _, x2=0.0)
  %z: f32[rows, seq, 4] = ops.add(%y, %m)
  return %z
}

graph Model(%x: f32[batch, seq, 4], %mask: bool[batch, 1, seq, seq]) {
  const @table: f32[4]
  %first: f32[batch, seq, 4] = call(%x, %mask, graph="Layer", path="first", window=1)
  %rest: f32[batch, seq, 4] = loop(%first, %mask, graph="Layer", path="layers.{i}", start=0, count=2,
    carry=1, window=(1, 2))
  %r: f32[batch, seq, 4] = aten.relu(%rest)
  %j: f32[batch, 2 * seq, 4] = ops.concatenate(%r, %rest, axis=1)
  %e: f32[batch, seq, seq] = ops.einsum(%r, %r, subscripts="bsi,bti->bst")
  %g: f32[batch, seq, 8] = ops.reshape(%r, newshape=(batch, seq, 8))
  return %j, %e
}

entry Model returns "joined", "gram"
"""


def mutated(graph, name, **changes):
    """The sound program with fields of one node replaced."""
    program = parse_program(SOUND)
    old = program.graphs[graph]
    node = replace(old[name], **changes)
    nodes = [node if n.name == name else n for n in old]
    return replace(program, graphs={**program.graphs, graph: old.replaced(nodes)})


def with_attrs(within, name, drop=(), **changes):
    attrs = {k: v for k, v in parse_program(SOUND).graphs[within][name].attrs.items() if k not in drop}
    return mutated(within, name, attrs={**attrs, **changes})


def f32(*shape):
    return Tensor("float32", tuple(Expr(s) if isinstance(s, str) else s for s in shape))


def test_sound_program_passes():
    verify(parse_program(SOUND), None)
    verify(parse_program(SOUND), "aten")


NODE_ERRORS = [
    (lambda: mutated("Layer", "n", operands=("x", "@gone")), "n", "there is no value @gone"),
    (lambda: mutated("Layer", "n", type=()), "n", "it has no type"),
    (lambda: mutated("Layer", "n", type=Tensor("float31", (4,))), "n", "float31 is not a dtype"),
    (lambda: mutated("Layer", "n", origin=frozenset()), "n", "it has no origin"),
    (lambda: mutated("Layer", "n", op="hub.rms_gnome"), "n", "there is no idiom hub.rms_gnome"),
    (lambda: mutated("Layer", "n", op="hub.keras_on_torch"), "n", "there is no idiom"),
    (lambda: mutated("Layer", "n", op="relu"), "n", "relu is no op"),
    (lambda: mutated("Layer", "m", op="ops.no_such_op"), "m", "Keras has no ops.no_such_op"),
    (lambda: mutated("Layer", "h", op="layers.NoSuchLayer"), "h", "Keras has no layers.NoSuchLayer"),
    (lambda: mutated("Layer", "h", operands=()), "h", "layers.Dense has no input"),
    (lambda: with_attrs("Layer", "h", colour=1), "h", "layers.Dense has no argument colour"),
    (lambda: with_attrs("Layer", "h", drop=["units"]), "h", "layers.Dense needs units"),
    (lambda: with_attrs("Layer", "n", eps=1e-6), "n", "hub.rms_norm has no argument eps"),
    (lambda: with_attrs("Layer", "n", drop=["epsilon"]), "n", "hub.rms_norm needs epsilon"),
    (lambda: with_attrs("Layer", "m", colour=1), "m", "ops.multiply has no argument colour"),
    (lambda: with_attrs("Layer", "m", drop=["x2"]), "m", "ops.multiply needs x2"),
    (lambda: mutated("Layer", "m", operands=("b", "b")), "m", "x2 is given by an operand already"),
    (lambda: mutated("Layer", "z", operands=("y", "m", "m")), "z", "ops.add takes at most 2 operands, not 3"),
    (lambda: with_attrs("Layer", "m", x2=Expr("widow")), "m", "nothing binds the name widow"),
    (lambda: with_attrs("Layer", "m", x2=[1]), "m", "which the IR does not know"),
    (lambda: mutated("Layer", "y", type=f32("rows", "seq", "dept")), "y", "nothing binds the name dept"),
    (lambda: with_attrs("Layer", "b", index=2), "b", "index 2 of 2 results"),
    (lambda: with_attrs("Layer", "b", index=True), "b", "index True of 2 results"),
    (lambda: mutated("Layer", "b", operands=("h",)), "b", "h has one result only"),
    (lambda: mutated("Layer", "b", operands=("s", "s")), "b", "item takes 1 operand, not 2"),
    (lambda: mutated("Layer", "b", type=f32("rows", "seq", 5)), "b", "it is f32[rows, seq, 4]"),
    (lambda: with_attrs("Model", "first", graph="Gone"), "first", "there is no graph Gone"),
    (lambda: with_attrs("Model", "first", drop=["path"]), "first", "call needs path"),
    (lambda: with_attrs("Model", "first", drop=["window"]), "first", "Layer needs its parameter window"),
    (lambda: with_attrs("Model", "first", stride=1), "first", "Layer has no parameter stride"),
    (lambda: mutated("Model", "first", operands=("x",)), "first", "Layer takes 2 operands, not 1"),
    (lambda: mutated("Model", "first", operands=("x", "x")), "first", "Layer takes mask as bool[batch, 1, seq, seq]"),
    (lambda: mutated("Model", "first", type=f32("batch", "seq", 5)), "first", "Layer returns f32[batch, seq, 4]"),
    (lambda: with_attrs("Model", "rest", drop=["count"]), "rest", "loop needs count"),
    (lambda: with_attrs("Model", "rest", window=(1, 2, 3)), "rest", "window has 3 values for 2 iterations"),
    (lambda: with_attrs("Model", "rest", carry=2), "rest", "Layer carries 1 of 2 values, not 2"),
    (lambda: mutated("Model", "rest", operands=("first", "first")), "rest", "Layer takes mask"),
    (lambda: mutated("Model", "rest", type=f32("batch", "seq", 5)), "rest", "Layer returns f32[batch, seq, 4]"),
    (lambda: mutated("Layer", "z", type=f32("rows", "seq", 5)), "rest", "and carries f32[batch, seq, 5] on"),
    (lambda: with_attrs("Model", "e", drop=["subscripts"]), "e", "ops.einsum needs subscripts"),
    (lambda: with_attrs("Model", "j", axes=1), "j", "ops.concatenate has no argument axes"),
]


@pytest.mark.parametrize("program, name, message", NODE_ERRORS, ids=[case[2] for case in NODE_ERRORS])
def test_every_mutation_is_found_at_its_node(program, name, message):
    with pytest.raises(ConversionError) as caught:
        verify(program(), None)
    lines = [line for d in caught.value.diagnostics for line in d.excerpt.splitlines()]
    at = next(i for i, line in enumerate(lines) if line.lstrip().startswith("^") and message in line)
    above = next(line for line in reversed(lines[:at]) if not line.lstrip().startswith("^"))
    assert above.strip().startswith(f"%{name}:")


SCAN = """
graph Step(%state: f32[rows, 4], %entry: f32[rows, 4], %scale: f32[4]) {
  %kept: f32[rows, 4] = ops.multiply(%state, %scale)
  %next: f32[rows, 4] = ops.add(%kept, %entry)
  return %next
}

graph Model(%start: f32[batch, 4], %x: f32[seq, batch, 4], %wide: f32[batch, 5]) {
  param @scale: f32[4]
  %y: f32[seq, batch, 4] = scan(%start, %x, @scale, graph="Step", path="step", carry=1, over=1)
  return %y
}

entry Model
"""

SCAN_ERRORS = [
    ('path="step", ', "", "scan needs path"),
    ("carry=1", "carry=2", "Step carries 1 values, not 2, over 1 sequences"),
    ("over=1", "over=3", "Step carries 1 values, not 1, over 3 sequences"),
    ("over=1", "over=2", "its sequences and results are not of one length: 4, seq"),
    ("%y: f32[seq, batch, 4]", "%y: f32[batch, batch, 4]", "its sequences and results are not of one length"),
    ("%y: f32[seq, batch, 4]", "%y: f32[seq, batch, 5]", "Step returns f32[batch, 4]"),
    ("scan(%start, %x", "scan(%wide, %x", "Step takes state as f32[batch, 4], not f32[batch, 5]"),
    ("return %next", "return %scale", "Step takes state as f32[rows, 4] and carries f32[4] on"),
]


@pytest.mark.parametrize("old, new, message", SCAN_ERRORS, ids=[case[2] for case in SCAN_ERRORS])
def test_scans(old, new, message):
    verify(parse_program(SCAN), None)
    with pytest.raises(ConversionError) as caught:
        verify(parse_program(SCAN.replace(old, new)), None)
    assert message in str(caught.value)


@pytest.mark.parametrize("level, gone", [("ops", {"aten"}), ("hub", {"aten"}), ("keras", {"aten", "hub"})])
def test_levels(level, gone):
    with pytest.raises(ConversionError) as caught:
        verify(parse_program(SOUND), level)
    text = str(caught.value)
    assert ("aten.relu is left over" in text) == ("aten" in gone)
    assert ("hub.rms_norm is left over" in text) == ("hub" in gone)
    verify(parse_program(SOUND.replace("aten.relu", "ops.relu").replace("hub.rms_norm", "ops.rms_normalization")
                         .replace("@scale, eps", "scale=1, eps")), level)  # fmt: skip


def test_ops_of_other_namespaces_are_left_over_too():
    program = parse_program(SOUND.replace("aten.relu", "transformers.grouped_mm_fallback"))
    verify(program, "aten")
    with pytest.raises(ConversionError, match="left over at level ops"):
        verify(program, "ops")


def test_program_and_graph_errors():
    program = parse_program(SOUND)
    with pytest.raises(ConversionError, match="entry graph Gone does not exist"):
        verify(replace(program, entry="Gone"), None)
    with pytest.raises(ConversionError, match="1 names for the 2 outputs"):
        verify(replace(program, outputs=("one",)), None)
    with pytest.raises(ConversionError, match="the output gone does not exist"):
        verify(program.map(lambda graph: graph.replaced(outputs=["gone"] * len(graph.outputs))), None)
    with pytest.raises(ConversionError, match="there is no output"):
        verify(replace(program.map(lambda graph: graph.replaced(outputs=[])), outputs=()), None)
    with pytest.raises(ConversionError, match="the graph named Other calls itself Layer"):
        verify(replace(program, graphs={**program.graphs, "Other": program.graphs["Layer"]}), None)
    with pytest.raises(ConversionError, match="its key is old"):
        graph = Graph("G", [Node("x", "input", type=f32(4), origin=frozenset("x"))], ["x"])
        graph.nodes["old"] = graph.nodes["x"]
        verify(replace(program, graphs={"G": graph}, entry="G", outputs=()), None)


def test_all_errors_are_collected():
    program = mutated("Layer", "n", operands=("x", "@gone"), origin=frozenset())
    layer = program.graphs["Layer"]
    layer = layer.replaced([replace(n, type=()) if n.name == "z" else n for n in layer])
    model = program.graphs["Model"].replaced(
        [n.with_attrs(index=1) if n.name == "first" else n for n in program.graphs["Model"]]
    )
    with pytest.raises(ConversionError) as caught:
        verify(replace(program, graphs={"Layer": layer, "Model": model}), "ops")
    text = str(caught.value)
    for message in ("no value @gone", "no origin", "no type", "no parameter index", "left over at level ops"):
        assert message in text


def test_names_are_unique_and_values_acyclic():
    x = Node("x", "input", type=f32(4), origin=frozenset("x"))
    with pytest.raises(ConversionError, match="two nodes of G have the name x"):
        Graph("G", [x, x], ["x"])
    a = Node("a", "ops.relu", ("b",), type=f32(4))
    b = Node("b", "ops.relu", ("a",), type=f32(4))
    with pytest.raises(ConversionError, match="depend on themselves"):
        Graph("G", [a, b], ["a"])
