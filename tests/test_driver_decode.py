"""The cached step is derived from what a program computes; what mixes positions in another way has none."""

import pytest

from hf2khc.driver.decode import derive_decoding
from hf2khc.driver.decode_positions import NoCache
from hf2khc.ir.graph import Graph, Program
from hf2khc.ir.text import format_graph, parse_program
from hf2khc.write.plan import Decoding

PROGRAM = """
graph Attention(%x: f32[batch, seq, 8], %padding_mask: i64[batch, seq]) {
  %query: f32[batch, seq, 4, 2] = ops.reshape(%x, newshape=(batch, seq, 4, 2))
  %small: f32[batch, seq, 4] = ops.get_item(%x, key=("ellipsis", ("slice", none, 4, none)))
  %key: f32[batch, seq, 2, 2] = ops.reshape(%small, newshape=(batch, seq, 2, 2))
  %value: f32[batch, seq, 2, 2] = ops.negative(%key)
  %keys_1: f32[batch, seq, 4, 2] = ops.repeat(%key, repeats=2, axis=2)
  %values: f32[batch, seq, 4, 2] = ops.repeat(%value, repeats=2, axis=2)
  %positions: i64[seq] = ops.arange(start=0, stop=seq, step=1, dtype="int64")
  %behind: i64[seq, 1] = ops.expand_dims(%positions, axis=1)
  %causal: bool[seq, seq] = ops.less_equal(%positions, %behind)
  %real: bool[batch, seq] = ops.cast(%padding_mask, dtype="bool")
  %real_1: bool[batch, 1, 1, seq] = ops.expand_dims(%real, axis=(1, 2))
  %mask: bool[batch, 1, seq, seq] = ops.logical_and(%causal, %real_1)
  %y: f32[batch, seq, 4, 2] = ops.dot_product_attention(%query, %keys_1, %values, _, %mask, scale=0.5)
  %z: f32[batch, seq, 8] = ops.reshape(%y, newshape=(batch, seq, 8))
  return %z
}

graph Model(%input_ids: i64[batch, seq], %attention_mask: i64[batch, seq]) {
  param @embed.weight: f32[9, 8]
  %x: f32[batch, seq, 8] = layers.Embedding(%input_ids, @embed.weight, input_dim=9, output_dim=8, name="embed")
  %y: f32[batch, seq, 8] = loop(%x, %attention_mask, graph="Attention", path="h.{i}", start=0, count=3, carry=1)
  return %y
}

entry Model
"""


def derived(text: str = PROGRAM) -> tuple[Program, Decoding]:
    return derive_decoding(parse_program(text), ["attention_mask"], {})


def refused(old: str, new: str) -> str:
    assert old in PROGRAM
    return refused_in(PROGRAM.replace(old, new))


def refused_in(text: str) -> str:
    with pytest.raises(NoCache) as reason:
        derived(text)
    return str(reason.value)


def attention() -> tuple[Graph, str]:
    graph = derived()[0].graphs["Attention"]
    return graph, format_graph(graph)


def test_keys_and_values_are_cached_before_they_are_repeated() -> None:
    _, decoding = derived()
    assert decoding.cached == {"Attention", "Model"} == decoding.indexed and decoding.layers == ("y",)
    graph, text = attention()
    update = graph["cache_update"]
    assert update.operands == ("key", "value") and update.attrs["rows"] == ((2, 2), (2, 2))
    assert "%keys_1: f32[batch, keys, 4, 2] = ops.repeat(%key_cached" in text


def test_keys_may_be_wider_than_values() -> None:
    wide = PROGRAM.replace(
        "%value: f32[batch, seq, 2, 2] = ops.negative(%key)",
        '%value: f32[batch, seq, 2, 1] = ops.get_item(%key, key=("ellipsis", ("slice", none, 1, none)))',
    ).replace("%values: f32[batch, seq, 4, 2]", "%values: f32[batch, seq, 4, 1]")
    wide = wide.replace("%y: f32[batch, seq, 4, 2]", "%y: f32[batch, seq, 4, 1]").replace(
        "%z: f32[batch, seq, 8] = ops.reshape(%y, newshape=(batch, seq, 8))",
        "%z_1: f32[batch, seq, 4] = ops.reshape(%y, newshape=(batch, seq, 4))\n"
        "  %z: f32[batch, seq, 8] = ops.concatenate(%z_1, %z_1, axis=-1)",
    )
    wide = wide.replace("ops.get_item(%key, key=(", "ops.get_item(%small_2, key=(").replace(
        "  %value:", "  %small_2: f32[batch, seq, 2, 2] = ops.negative(%key)\n  %value:"
    )
    wide = wide.replace("ops.negative(%key)", "ops.reshape(%small, newshape=(batch, seq, 2, 2))")
    program, _ = derived(wide)
    update = program.graphs["Attention"]["cache_update"]
    assert update.operands == ("key", "value") and update.attrs["rows"] == ((2, 2), (2, 1))


def test_layers_may_cache_rows_of_different_sizes() -> None:
    other = (
        PROGRAM.replace("graph Attention(", "graph Other(")
        .partition("graph Model")[0]
        .replace('key=("ellipsis", ("slice", none, 4, none)))', 'key=("ellipsis", ("slice", none, 2, none)))')
    )
    for old, new in {"%small: f32[batch, seq, 4]": "%small: f32[batch, seq, 2]",
                     "[batch, seq, 2, 2]": "[batch, seq, 1, 2]", "(batch, seq, 2, 2)": "(batch, seq, 1, 2)",
                     "repeats=2": "repeats=4"}.items():  # fmt: skip
        assert old in other
        other = other.replace(old, new)
    text = other + PROGRAM.replace(
        "  return %y\n}\n\nentry",
        """
  %w: f32[batch, seq, 8] = call(%y, %attention_mask, graph="Other", path="last")
  return %w
}

entry""",
    )
    program, decoding = derived(text)
    assert decoding.layers == ("y", "w")
    rows = [program.graphs[name]["cache_update"].attrs["rows"] for name in ("Attention", "Other")]
    assert rows == [((2, 2), (2, 2)), ((1, 2), (1, 2))]


def test_layers_with_a_cache_stand_in_the_model_itself() -> None:
    stack = """
graph Stack(%x: f32[batch, seq, 8], %padding_mask: i64[batch, seq]) {
  %y: f32[batch, seq, 8] = loop(%x, %padding_mask, graph="Attention", path="h.{i}", start=0, count=3, carry=1)
  return %y
}

graph Model("""
    text = PROGRAM.replace('loop(%x, %attention_mask, graph="Attention", path="h.{i}", start=0, count=3, carry=1)',
                           'call(%x, %attention_mask, graph="Stack", path="stack")')  # fmt: skip
    assert "several layers that cache" in refused_in(text.replace("\ngraph Model(", stack))


def test_positions_are_those_of_the_inputs_or_of_all_keys() -> None:
    graph, text = attention()
    assert graph["padding_mask"].tensor.symbols == {"batch", "keys"} and graph["x"].tensor.symbols == {"batch", "seq"}
    assert "%positions_all: i64[keys] = ops.arange(start=0, stop=keys" in text
    assert "ops.add(%positions_1, x2=start_index)" in text
    assert "%causal: bool[seq, keys] = ops.less_equal(%positions_all, %behind)" in text
    assert "%y: f32[batch, seq, 4, 2] = ops.dot_product_attention(%query, %keys_1, %values" in text


COUNTED = """
  %count: i64[batch, seq] = ops.cumsum(%padding_mask, axis=1)
  %count_1: i64[batch, seq, 1] = ops.expand_dims(%count, axis=2)
  %shift: f32[batch, seq, 1] = ops.cast(%count_1, dtype="float32")
  %moved: f32[batch, seq, 8] = ops.add(%x, %shift)
  %query: f32[batch, seq, 4, 2] = ops.reshape(%moved"""


def test_what_depends_on_sizes_alone_may_be_computed_in_any_way() -> None:
    text = PROGRAM.replace("\n  %query: f32[batch, seq, 4, 2] = ops.reshape(%x", COUNTED)
    assert text != PROGRAM
    found = format_graph(derived(text)[0].graphs["Attention"])
    assert "%count_all: i64[batch, keys] = ops.cumsum(%padding_mask, axis=1)" in found
    assert "ops.slice(%count_all, start_indices=(0, start_index), shape=(batch, seq))" in found


def test_what_has_no_cached_step() -> None:
    assert "mixes positions" in refused("ops.negative(%key)", "ops.cumsum(%key, axis=1)")
    assert "mixes positions" in refused("ops.negative(%key)", "ops.flip(%key, axis=1)")
    shifted = refused(
        "ops.negative(%key)", 'ops.get_item(%key, key=(("slice", none, none, none), ("slice", 1, none, 2)))'
    )
    assert "mixes positions" in shifted
    both = "ops.add(%small_1, %y)\n  %z: f32[batch, seq, 8] = ops.reshape(%both"
    small = "  %small_1: f32[batch, seq, 4, 2] = ops.concatenate(%key, %key, axis=2)\n  %both: f32[batch, seq, 4, 2] = "
    assert "needed at the positions of the input, too" in refused(
        "  %z: f32[batch, seq, 8] = ops.reshape(%y", f"{small}{both}"
    )


def test_heads_on_the_axis_of_the_batch_have_no_cache() -> None:
    merged = PROGRAM.replace("%key: f32[batch, seq, 2, 2] = ops.reshape(%small, newshape=(batch, seq, 2, 2))", """
  %key_1: f32[batch, seq, 2, 2] = ops.reshape(%small, newshape=(batch, seq, 2, 2))
  %key_2: f32[batch, 2, seq, 2] = ops.transpose(%key_1, axes=(0, 2, 1, 3))
  %key_3: f32[2 * batch, seq, 2] = ops.reshape(%key_2, newshape=(2 * batch, seq, 2))
  %key: f32[2 * batch, seq, 2] = ops.exp(%key_3)""".lstrip())  # fmt: skip
    start = merged.index("  %value:")
    end = merged.index("  return %z")
    rest = """  %query_2: f32[batch, 4, seq, 2] = ops.transpose(%query, axes=(0, 2, 1, 3))
  %some: f32[batch, 2, seq, 2] = ops.get_item(%query_2, key=(("slice", none, none, none), ("slice", none, 2, none)))
  %query_3: f32[2 * batch, seq, 2] = ops.reshape(%some, newshape=(2 * batch, seq, 2))
  %value: f32[2 * batch, seq, 2] = ops.negative(%key)
  %scores: f32[2 * batch, seq, seq] = ops.einsum(%query_3, %key, subscripts="bqd,bkd->bqk")
  %y: f32[2 * batch, seq, 2] = ops.einsum(%scores, %value, subscripts="bqk,bkd->bqd")
  %back: f32[batch, 2, seq, 2] = ops.reshape(%y, newshape=(batch, 2, seq, 2))
  %rows: f32[batch, seq, 2, 2] = ops.transpose(%back, axes=(0, 2, 1, 3))
  %flat: f32[batch, seq, 4] = ops.reshape(%rows, newshape=(batch, seq, 4))
  %z: f32[batch, seq, 8] = ops.concatenate(%flat, %flat, axis=-1)
"""
    with pytest.raises(NoCache, match="on the axis of the batch"):
        derived(merged[:start] + rest + merged[end:])


def test_the_model_takes_tokens_and_masks_alone() -> None:
    with pytest.raises(NoCache, match="more than token ids and masks"):
        derive_decoding(parse_program(PROGRAM), [], {})
    alone = PROGRAM.replace("return %y\n}\n\nentry", "return %x\n}\n\nentry")
    with pytest.raises(NoCache, match="no layer sums over positions"):
        derived(alone)


def test_a_layer_reads_from_the_tokens_how_many_they_are() -> None:
    counted = """
graph Positions(%padding_mask: i64[batch, seq]) {
  %count: i64[batch, seq] = ops.cumsum(%padding_mask, axis=1)
  return %count
}

graph Model("""
    text = PROGRAM.replace("\ngraph Model(", counted).replace(
        "  %y: f32[batch, seq, 8] = loop(%x,",
        """  %count: i64[batch, seq] = call(%attention_mask, graph="Positions", path="")
  %shift: f32[batch, seq] = ops.cast(%count, dtype="float32")
  %shift_1: f32[batch, seq, 1] = ops.expand_dims(%shift, axis=2)
  %moved: f32[batch, seq, 8] = ops.add(%x, %shift_1)
  %y: f32[batch, seq, 8] = loop(%moved,""",
    )
    program = derived(text)[0]
    shapes = [str(node.tensor) for node in program.graphs["Positions"].inputs]
    assert shapes == ["i64[batch, keys]", "i64[batch, seq]"]
    assert program.main["count"].operands == ("attention_mask", "input_ids")


def test_what_stands_several_times_on_a_new_axis_treats_every_position_by_itself() -> None:
    twice = """  %twice: f32[2, batch, seq, 2, 2] = ops.tile(%key, repeats=(2, 1, 1, 1, 1))
  %value: f32[batch, seq, 2, 2] = ops.sum(%twice, axis=0)
"""
    line = "  %value: f32[batch, seq, 2, 2] = ops.negative(%key)\n"
    assert derived(PROGRAM.replace(line, twice))[1] == derived()[1]
    along = """  %twice: f32[batch, 2 * seq, 2, 2] = ops.tile(%key, repeats=(1, 2, 1, 1))
  %value: f32[batch, 2 * seq, 2, 2] = ops.exp(%twice)
"""
    longer = PROGRAM.replace("%values: f32[batch, seq, 4, 2]", "%values: f32[batch, 2 * seq, 4, 2]")
    assert "no sequence" in refused_in(longer.replace(line, along))


def test_a_norm_over_the_last_axis_treats_every_position_by_itself() -> None:
    text = PROGRAM.replace("ops.negative(%key)", "ops.rms_normalization(%key, axis=-1, epsilon=0.1)")
    assert derived(text)[1] == derived()[1]
    assert "mixes positions" in refused("ops.negative(%key)", "ops.rms_normalization(%key, axis=1, epsilon=0.1)")


def test_a_layer_may_take_the_tokens_of_all_sequences_in_one_row() -> None:
    experts = """
graph Experts(%rows: f32[batch * seq, 8]) {
  %sums: f32[batch * seq, 8] = ops.exp(%rows)
  return %sums
}

graph Attention("""
    text = PROGRAM.replace("\ngraph Attention(", experts, 1).replace(
        "  return %z\n",
        """  %rows: f32[batch * seq, 8] = ops.reshape(%z, newshape=(batch * seq, 8))
  %mixed: f32[batch * seq, 8] = call(%rows, graph="Experts", path="experts")
  %back: f32[batch, seq, 8] = ops.reshape(%mixed, newshape=(batch, seq, 8))
  return %back
""",
    )
    assert derived(text)[1] == derived()[1]
    assert "mixes positions" in refused_in(text.replace("ops.exp(%rows)", "ops.cumsum(%rows, axis=0)"))


def test_rows_of_heads_are_rows_of_tokens_again() -> None:
    """Qwen 3.5 normalises the heads of all tokens in one row each."""
    rows = """  %rows: f32[4 * batch * seq, 2] = ops.reshape(%y, newshape=(4 * batch * seq, 2))
  %normal: f32[4 * batch * seq, 2] = ops.rms_normalization(%rows, axis=-1, epsilon=0.1)
  %z: f32[batch, seq, 8] = ops.reshape(%normal, newshape=(batch, seq, 8))
"""
    line = "  %z: f32[batch, seq, 8] = ops.reshape(%y, newshape=(batch, seq, 8))\n"
    assert line in PROGRAM
    assert derived(PROGRAM.replace(line, rows))[1] == derived()[1]
    # Of other sizes it is no row of a token.
    other = rows.replace("4 * batch * seq", "4 + batch * seq")
    assert "mixes positions" in refused(line, other)


def test_rows_of_other_heads_are_rows_of_tokens_as_well() -> None:
    """Qwen3-Next has a head's gates beside those of its group: taken apart anew, as rows of all tokens."""
    rows = """  %rows: f32[2 * batch * seq, 4] = ops.reshape(%y, newshape=(2 * batch * seq, 4))
  %normal: f32[2 * batch * seq, 4] = ops.rms_normalization(%rows, axis=-1, epsilon=0.1)
  %z: f32[batch, seq, 8] = ops.reshape(%normal, newshape=(batch, seq, 8))
"""
    line = "  %z: f32[batch, seq, 8] = ops.reshape(%y, newshape=(batch, seq, 8))\n"
    assert derived(PROGRAM.replace(line, rows))[1] == derived()[1]


def test_a_size_is_lent_on_by_the_layers_in_between() -> None:
    """A layer in a loop calls one that counts positions and is given nothing that shows how many there are."""
    text = """
graph Positions(%ids: i64[batch, seq]) {
  %keys_1: f32[seq] = ops.arange(start=0, stop=seq, step=1, dtype="float32")
  %queries: f32[seq, 1] = ops.expand_dims(%keys_1, axis=1)
  %bias: f32[seq, seq] = ops.subtract(%keys_1, %queries)
  return %bias
}

graph Layer(%x: f32[batch, seq, 8], %ids: i64[batch, seq]) {
  %bias: f32[seq, seq] = call(%ids, graph="Positions", path="positions")
  %key: f32[batch, seq, 8] = ops.exp(%x)
  %scores: f32[batch, seq, seq] = ops.einsum(%x, %key, subscripts="bqd,bkd->bqk")
  %biased: f32[batch, seq, seq] = ops.add(%scores, %bias)
  %y: f32[batch, seq, 8] = ops.einsum(%biased, %key, subscripts="bqk,bkd->bqd")
  return %y
}

graph Model(%input_ids: i64[batch, seq], %attention_mask: i64[batch, seq]) {
  param @embed.weight: f32[9, 8]
  %x: f32[batch, seq, 8] = layers.Embedding(%input_ids, @embed.weight, input_dim=9, output_dim=8, name="embed")
  %y: f32[batch, seq, 8] = loop(%x, %input_ids, graph="Layer", path="h.{i}", start=0, count=3, carry=1)
  return %y
}

entry Model
"""
    program, decoding = derived(text)
    assert program.main["y"].operands == ("x", "input_ids", "attention_mask")
    layer, positions = program.graphs["Layer"], program.graphs["Positions"]
    assert str(layer.inputs[-1].tensor) == str(positions.inputs[-1].tensor) == "i64[batch, keys]"
    assert layer["bias"].operands == ("ids", "padding_mask") and decoding.layers == ("y",)
