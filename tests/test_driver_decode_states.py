"""What a cached step keeps of all that came before: of convolutions and shifts, of scans, of products with decays."""

import pytest

from hf2khc.driver.decode import derive_decoding
from hf2khc.driver.decode_positions import NoCache
from hf2khc.ir.graph import Graph, Program
from hf2khc.ir.text import parse_program
from hf2khc.write.plan import KEEP, STATE, WINDOW, Decoding, State, states_of

MODEL = """
graph Mixer(%x: f32[batch, seq, 8]) {
  param @kernel: f32[3, 8, 8]
  param @square: f32[8, 8]
<body>
  return %z
}

graph Model(%input_ids: i64[batch, seq]) {
  param @embed.weight: f32[9, 8]
  %x: f32[batch, seq, 8] = layers.Embedding(%input_ids, @embed.weight, input_dim=9, output_dim=8, name="embed")
  %y: f32[batch, seq, 8] = call(%x, graph="Mixer", path="mixer")
  return %y
}

entry Model
"""
CONVOLUTION = """
  %padded: f32[batch, seq + 2, 8] = ops.pad(%x, pad_width=((0, 0), (2, 0), (0, 0)))
  %z: f32[batch, seq, 8] = layers.Conv1D(%padded, @kernel, filters=8, kernel_size=(3,), strides=(1,), data_format="channels_last", use_bias=false, name="conv")
"""  # noqa: E501
# As torch pads: on both sides, and what is behind is cut off.
BOTH_SIDES = """
  %padded: f32[batch, seq + 4, 8] = ops.pad(%x, pad_width=((0, 0), (2, 2), (0, 0)))
  %longer: f32[batch, seq + 4 - 2, 8] = layers.Conv1D(%padded, @kernel, filters=8, kernel_size=(3,), strides=(1,), data_format="channels_last", use_bias=false, name="conv")
  %z: f32[batch, seq, 8] = ops.get_item(%longer, key=(("slice", none, none, none), ("slice", none, seq, none)))
"""  # noqa: E501
SHIFT = """
  %cut: f32[batch, seq + -1, 8] = ops.get_item(%x, key=("ellipsis", ("slice", none, -1, none), ("slice", none, none, none)))
  %z: f32[batch, seq, 8] = ops.pad(%cut, pad_width=((0, 0), (1, 0), (0, 0)))
"""  # noqa: E501
# The same, put together: a layer of zeros is zeros.
JOINED = """
  %zeros: f32[batch, 1, 8] = ops.zeros(shape=(batch, 1, 8), dtype="float32")
  %first: f32[batch, 1, 8] = layers.Dense(%zeros, @square, units=8, use_bias=false, name="dense")
  %cut: f32[batch, seq + -1, 8] = ops.get_item(%x, key=("ellipsis", ("slice", none, -1, none), ("slice", none, none, none)))
  %z: f32[batch, seq, 8] = ops.concatenate(%first, %cut, axis=1)
"""  # noqa: E501
SCAN = """
  %first: f32[batch, 8] = ops.get_item(%x, key=(("slice", none, none, none), 0))
  %zeros: f32[batch, 8] = ops.zeros_like(%first, dtype="float32")
  %start: f32[batch, 8] = ops.subtract(%zeros, x2=3.5)
  %result: f32[batch, 8] = ops.zeros(shape=(batch, 8), dtype="float32")
  %entries: f32[seq, batch, 8] = ops.transpose(%x, axes=(1, 0, 2))
  %all: (f32[seq, batch, 8], f32[seq, batch, 8]) = scan(%start, %result, %entries, graph="Step", path="", carry=2, over=1, name="step")
  %rounds: f32[seq, batch, 8] = item(%all, index=1)
  %z: f32[batch, seq, 8] = ops.transpose(%rounds, axes=(1, 0, 2))
"""  # noqa: E501
STEP = """
graph Step(%state: f32[batch, 8], %result: f32[batch, 8], %entry: f32[batch, 8]) {
  %next: f32[batch, 8] = ops.add(%state, %entry)
  %y: f32[batch, 8] = ops.exp(%next)
  return %next, %y
}
"""
RECURRENCE = """
  %a: f32[batch, seq] = ops.sum(%x, axis=2)
  %decays: f32[batch, 1 + seq] = ops.pad(%a, pad_width=((0, 0), (1, 0)))
  %column: f32[batch, 1 + seq, 1] = ops.expand_dims(%decays, axis=2)
  %square: f32[batch, 1 + seq, 1 + seq] = ops.broadcast_to(%column, shape=(batch, 1 + seq, 1 + seq))
  %ones: bool[1 + seq, 1 + seq] = ops.ones(shape=(1 + seq, 1 + seq), dtype="bool")
  %below: bool[1 + seq, 1 + seq] = ops.tril(%ones, k=-1)
  %above: bool[1 + seq, 1 + seq] = ops.logical_not(%below)
  %terms: f32[batch, 1 + seq, 1 + seq] = ops.where(%above, _, %square, x1=0)
  %sums: f32[batch, 1 + seq, 1 + seq] = ops.cumsum(%terms, axis=-2)
  %lower: bool[1 + seq, 1 + seq] = ops.tril(%ones, k=0)
  %upper: bool[1 + seq, 1 + seq] = ops.logical_not(%lower)
  %masked: f32[batch, 1 + seq, 1 + seq] = ops.where(%upper, _, %sums, x1=-inf)
  %factors: f32[batch, 1 + seq, 1 + seq] = ops.exp(%masked)
  %zeros: f32[batch, 1, 8] = ops.zeros(shape=(batch, 1, 8), dtype="float32")
  %joined: f32[batch, 1 + seq, 8] = ops.concatenate(%zeros, %x, axis=1)
  %all: f32[batch, 1 + seq, 8] = ops.einsum(%factors, %joined, subscripts="bcz,bzd->bcd")
  %z: f32[batch, seq, 8] = ops.get_item(%all, key=(("slice", none, none, none), ("slice", none, -1, none)))
"""


def derived(body: str) -> tuple[Program, Decoding]:
    text = (STEP if "Step" in body else "") + MODEL.replace("<body>", body.strip("\n"))
    return derive_decoding(parse_program(text), [], {})


def mixer(body: str) -> tuple[Graph, list[State]]:
    program, decoding = derived(body)
    assert decoding.has_states and decoding.cached == {"Mixer", "Model"}
    graph = program.graphs["Mixer"]
    (kept,) = graph.of(KEEP)
    assert graph.outputs == (kept.name,)
    return graph, states_of(kept)


def refused(body: str) -> str:
    with pytest.raises(NoCache) as reason:
        derived(body)
    return str(reason.value)


def test_a_convolution_keeps_the_last_entries_of_its_sequence() -> None:
    graph, states = mixer(CONVOLUTION)
    (window,) = graph.of(WINDOW)
    assert window.operands == ("x",) and (window.attrs["axis"], window.attrs["size"]) == (1, 2)
    assert states == [State(row=(2, 8), value=0.0, axis=1, size=2)]
    assert graph.of(KEEP)[0].operands == ("z", window.name)
    assert graph.of("layers.Conv1D")[0].operands[0] == window.name and not graph.of("ops.pad")


def test_what_is_padded_behind_is_so_again() -> None:
    graph, states = mixer(BOTH_SIDES)
    (pad,) = graph.of("ops.pad")
    assert pad.attrs["pad_width"] == ((0, 0), (0, 2), (0, 0)) and graph[pad.used[0]].op == WINDOW
    assert states == [State((2, 8), 0.0, 1, 2)]


@pytest.mark.parametrize("body", [SHIFT, JOINED])
def test_a_shift_keeps_what_it_cuts_off(body: str) -> None:
    graph, _ = mixer(body)
    (window,) = graph.of(WINDOW)
    assert window.operands == ("x",), "the last entry is the one that comes next"
    assert graph["z"].op == "ops.get_item" and graph["z"].operands == (window.name,)


def test_a_scan_begins_with_what_it_carried_last() -> None:
    graph, states = mixer(SCAN)
    (state,) = graph.of(STATE)
    scan, kept = graph["all"], graph.of(KEEP)[0]
    # What no entry reads of the one before it is no state.
    assert scan.operands == (state.name, "result", "entries")
    assert states == [State((8,), -3.5, 0)]
    assert graph[kept.operands[1]].op == "item" and graph[kept.operands[1]].attrs["index"] == 0
    # Of a value that is there for its shape alone, that is all that is computed.
    assert not graph.of("ops.get_item", "ops.zeros_like")


def test_a_recurrence_computed_at_once_begins_with_what_it_gave_last() -> None:
    graph, states = mixer(RECURRENCE)
    (state,) = graph.of(STATE)
    assert graph["joined"].operands == (state.name, "x") and state.operands == ("zeros",)
    assert states == [State((1, 8), 0.0, 1, 1)] and graph.of(KEEP)[0].operands[1] == "all"
    # All else in it is about the entries that there are.
    assert graph["ones"].attrs["shape"] == graph["ones"].tensor.shape and not graph.of("ops.slice")


@pytest.mark.parametrize(
    ("body", "old", "new", "reason"),
    [
        (CONVOLUTION, "(2, 0), (0, 0)))", '(2, 0), (0, 0)), mode="edge")', "mixes positions"),
        (CONVOLUTION, "(2, 0), (0, 0)))", "(2, 0), (0, 0)), constant_values=1.0)", "mixes positions"),
        (BOTH_SIDES, "strides=(1,)", "strides=(2,)", "mixes positions"),
        # Not the last entry but one is missing.
        (SHIFT, '("slice", none, -1, none)', '("slice", none, none, 2)', "mixes positions"),
        (JOINED, "ops.zeros(", "ops.ones(", "mixes positions"),
        (JOINED, "use_bias=false", 'use_bias=false, activation="sigmoid"', "mixes positions"),
        (SCAN, "scan(%start,", "scan(%first,", "not one over positions alone"),
        (SCAN, "ops.subtract(%zeros, x2=3.5)", "ops.log(%zeros)", "no one number"),
        (RECURRENCE, "x1=-inf", "x1=-1.0", "mixes positions"),
        (RECURRENCE, "ops.tril(%ones, k=-1)", "ops.tril(%ones, k=-2)", "mixes positions"),
        (RECURRENCE, '"bcz,bzd->bcd"', '"bzc,bzd->bcd"', "no sequence"),
        (RECURRENCE, "ops.zeros(shape=(batch, 1, 8)", "ops.ones(shape=(batch, 1, 8)", "not zero"),
    ],
)
def test_what_has_no_state(body: str, old: str, new: str, reason: str) -> None:
    assert old in body
    assert reason in refused(body.replace(old, new, 1))


def test_a_layer_with_a_state_may_have_several_results() -> None:
    text = MODEL.replace("<body>", SHIFT.strip("\n")).replace("return %z", "return %z, %x")
    text = text.replace("%y: f32[batch, seq, 8] = call", "%both: (f32[batch, seq, 8], f32[batch, seq, 8]) = call")
    text = text.replace("  return %y", "  %y: f32[batch, seq, 8] = item(%both, index=0)\n  return %y")
    program, decoding = derive_decoding(parse_program(text), [], {})
    graph = program.graphs["Mixer"]
    assert decoding.layers == ("both",) and graph[graph.outputs[0]].op == KEEP and graph.outputs[1] == "x"


def test_kinds_of_layers_in_one_loop_are_given_the_same() -> None:
    """Attention needs the mask of all positions, a convolution that of the given ones."""
    attention = """
graph Attention(%x: f32[batch, seq, 8], %mask: i64[batch, seq]) {
  %k: f32[batch, seq, 8] = ops.exp(%x)
  %scores: f32[batch, seq, seq] = ops.einsum(%x, %k, subscripts="bqd,bkd->bqk")
  %m: i64[batch, 1, seq] = ops.expand_dims(%mask, axis=1)
  %masked: f32[batch, seq, seq] = ops.multiply(%scores, %m)
  %z: f32[batch, seq, 8] = ops.einsum(%masked, %k, subscripts="bqk,bkd->bqd")
  return %z
}

graph Mixer(%x: f32[batch, seq, 8], %mask: i64[batch, seq]) {
  %m: i64[batch, seq, 1] = ops.expand_dims(%mask, axis=2)
  %real: f32[batch, seq, 8] = ops.multiply(%x, %m)
  %padded: f32[batch, seq + 1, 8] = ops.pad(%real, pad_width=((0, 0), (1, 0), (0, 0)))
  %z: f32[batch, seq, 8] = ops.get_item(%padded, key=(("slice", none, none, none), ("slice", none, -1, none)))
  return %z
}

graph Model(%input_ids: i64[batch, seq], %mask: i64[batch, seq]) {
  param @embed.weight: f32[9, 8]
  %x: f32[batch, seq, 8] = layers.Embedding(%input_ids, @embed.weight, input_dim=9, output_dim=8, name="embed")
  %y: f32[batch, seq, 8] = loop(%x, %mask, graph=("Mixer", "Attention"), path="h.{i}", start=0, count=4, carry=1)
  return %y
}

entry Model
"""
    program, decoding = derive_decoding(parse_program(attention), ["mask"], {})
    assert decoding.has_states
    for name in ("Attention", "Mixer"):
        assert str(program.graphs[name]["mask"].tensor) == "i64[batch, keys]", name
    assert program.graphs["Mixer"].of("ops.slice")
