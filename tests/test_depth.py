"""Loops over the layers that were kept become loops over all of them."""

import pytest
from tiny_models import MODELS, albert, t5
from transformers import AlbertConfig, AlbertForQuestionAnswering, AlbertModel, BertConfig, BertModel, T5Model

from hf2khc.capture.truncate import Stack
from hf2khc.diagnostics import ConversionError
from hf2khc.driver.depth import (
    MORE_LAYERS,
    as_deep_as,
    at_another_depth,
    depth_fields,
    uncounted,
    with_depth,
    with_more_rounds,
)
from hf2khc.ir.expr import Expr
from hf2khc.ir.text import parse_program

BERT = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12, "vocab_size": 9}
PROGRAM = """
graph Block<window>(%x: f32[batch, 8]) {
  %a: f32[batch, 8] = ops.multiply(%x, x2=window)
  return %a
}

graph First(%x: f32[batch, 8]) {
  %a: f32[batch, 8] = ops.relu(%x)
  return %a
}

graph Model(%x: f32[batch, 8]) {
  %f: f32[batch, 8] = call(%x, graph="First", path="layers.0")
  %y: f32[batch, 8] = loop(%f, graph="Block", path="layers.{i}", start=1, count=2, carry=1, window=(2.0, 3.0))
  return %y
}

entry Model
"""


def loop_of(kinds: tuple[int, ...], kept: int = 3, depth: dict[str, str] | None = None):
    stack = Stack("layers", len(kinds), kept, kinds, None)
    program = with_depth(parse_program(PROGRAM), {"layers": stack}, depth or {})
    return program.main.of("loop")[0]


def test_layers_take_what_the_layer_of_their_kind_has():
    loop = loop_of((0, 1, 2, 1, 1, 2))
    assert loop.attrs["count"] == 5
    assert loop.attrs["window"] == (2.0, 3.0, 2.0, 2.0, 3.0)


def test_the_count_is_the_field_that_gives_the_depth():
    loop = loop_of((0, 1, 2, 1), depth={"layers": "config.num_layers"})
    assert loop.attrs["count"] == Expr.of("config.num_layers - 1")


def test_a_field_that_no_loop_counts_is_one_that_keeps_its_value():
    stacks = {path: Stack(path, 3, 3, (0, 1, 1), None) for path in ("layers", "tables")}
    depth = {"layers": "config.num_layers", "tables": "config.num_tables"}
    program = with_depth(parse_program(PROGRAM), stacks, depth)
    assert uncounted(program, stacks, depth) == {"num_tables": "the layers of tables are printed one by one"}
    # Of lists that no input reaches nothing is printed.
    assert uncounted(program, {"layers": stacks["layers"]}, depth) == {}


def test_a_kind_that_stands_before_the_loop_alone_is_refused():
    with pytest.raises(ConversionError, match="shows no layer like layer 3"):
        loop_of((0, 1, 2, 0, 1))


def test_a_loop_that_ends_before_the_kept_layers_is_refused():
    with pytest.raises(ConversionError, match="ends at 3"):
        loop_of((0, 1, 2, 1, 1), kept=4)


def test_a_cut_list_without_a_loop_is_refused():
    stack = Stack("blocks", 4, 2, (0, 0, 0, 0), None)
    with pytest.raises(ConversionError, match="blocks"):
        with_depth(parse_program(PROGRAM), {"blocks": stack}, {})


@pytest.mark.parametrize(
    ("name", "stacks", "fields"),
    [
        ("gpt2", {"h": 3}, {"h": "config.n_layer"}),
        ("bert", {"encoder.layer": 3}, {"encoder.layer": "config.num_hidden_layers"}),
        ("vit", {"layers": 3}, {"layers": "config.num_hidden_layers"}),
        ("gemma2", {"layers": 4}, {"layers": "config.num_hidden_layers"}),
    ],
)
def test_depth_field(name, stacks, fields):
    assert depth_fields(*MODELS[name], stacks) == fields


def test_two_stacks_have_two_fields():
    stacks = {"encoder.block": 3, "decoder.block": 2}
    fields = {"encoder.block": "config.num_layers", "decoder.block": "config.num_decoder_layers"}
    assert depth_fields(t5(), T5Model, stacks) == fields


def test_a_number_that_is_equal_by_chance_is_no_depth():
    config = albert(num_hidden_layers=5, num_hidden_groups=3, inner_group_num=2)
    stacks = {"encoder.albert_layer_groups": 3}
    assert depth_fields(config, AlbertModel, stacks) == {"encoder.albert_layer_groups": "config.num_hidden_groups"}


def test_a_number_of_sizes_is_no_number_of_rounds():
    """Two rounds of a shared layer, and two labels: one more label is another model."""
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12, "embedding_size": 6, "vocab_size": 9}
    config = AlbertConfig(**sizes, num_hidden_layers=2, num_labels=2)
    rounds = PROGRAM.replace("layers.{i}", "layers")
    more = with_more_rounds(config, AlbertForQuestionAnswering, parse_program(rounds))
    assert (more.num_hidden_layers, more.num_labels) == (3, 2)


def test_a_twin_has_more_layers_where_those_that_are_kept_stay():
    config, model_class = MODELS["bert"]
    more = at_another_depth(config, model_class, ["config.num_hidden_layers"])
    assert more.num_hidden_layers == config.num_hidden_layers + MORE_LAYERS
    assert as_deep_as(more, config, ["config.num_hidden_layers"]).to_dict() == config.to_dict()


def test_a_twin_of_a_deep_model_has_few_layers():
    config = BertConfig(**BERT, num_hidden_layers=30)
    first = at_another_depth(config, BertModel, ["config.num_hidden_layers"])
    second = at_another_depth(first, BertModel, ["config.num_hidden_layers"])
    assert (first.num_hidden_layers, second.num_hidden_layers) == (2 + MORE_LAYERS, 2 + 2 * MORE_LAYERS)


def test_a_twin_whose_layers_are_listed_one_by_one_is_no_deeper():
    config, model_class = MODELS["gemma2"]
    assert len(config.layer_types) == config.num_hidden_layers
    more = at_another_depth(config, model_class, ["config.num_hidden_layers"])
    assert more.num_hidden_layers == config.num_hidden_layers
