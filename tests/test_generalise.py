"""Several programs of one architecture become one over config fields."""

import pytest
from float64_reference import error_against, noisy_model
from three_configs import FIELDS
from tiny_models import gpt2, llama
from transformers import BertConfig, GPT2Model, LlamaModel

from hf2khc.capture.frontend import capture
from hf2khc.driver.compile import lower
from hf2khc.driver.config_fields import flat_fields
from hf2khc.driver.depth import with_depth
from hf2khc.driver.generalise import generalise
from hf2khc.ir.graph import Program
from hf2khc.ir.text import format_program, parse_program
from hf2khc.ir.types import Differs

TEXT = """
graph Model(%x: f32[batch, {width}]) {{
  param @w: f32[{width}, {units}]
  %y: f32[batch, {units}] = layers.Dense(%x, @w, units={units}, use_bias=false)
  %z: f32[batch, {units}] = ops.{op}(%y)
  return %z
}}

entry Model
"""

SIZES = ((40, 52, 14), (96, 24, 6), (72, 32, 17))


def program(width: int, units: int, op: str = "relu") -> Program:
    return parse_program(TEXT.format(width=width, units=units, op=op))


def test_a_program_follows_its_config():
    result = generalise(program(40, 52), [program(96, 24), program(72, 32)], FIELDS)
    assert result.reasons == ()
    text = TEXT.format(width="config.hidden_size", units="config.intermediate_size", op="relu")
    assert format_program(result.program).strip() == text.strip()


def test_a_computed_size_without_a_law_is_told_from_one_that_is_the_same_everywhere():
    text = TEXT.replace("%z: f32[batch, {units}] = ops.{op}(%y)", "%z: f32[{rows}, 9] = ops.{op}(%y)")
    programs = [parse_program(text.format(width=w, units=u, op="relu", rows=r)) for w, u, r in SIZES]
    result = generalise(programs[0], programs[1:], FIELDS)
    assert result.reasons == ()
    shape = result.program.main["z"].tensor.shape
    assert shape == (14, 9) and [type(dim) for dim in shape] == [Differs, int]


def test_another_structure_is_reported_and_nothing_generalised():
    result = generalise(program(40, 52), [program(96, 24), program(72, 32, "gelu")], FIELDS)
    assert len(result.reasons) == 1 and "computes Model another way" in result.reasons[0]
    assert format_program(result.program) == format_program(program(40, 52))


PARTLY = """
graph Shared(%x: f32[batch, {width}]) {{
  %y: f32[batch, {width}] = ops.add(%x, x2={added})
  return %y
}}

graph Branching(%x: f32[batch, {width}]) {{
  %y: f32[batch, {width}] = call(%x, graph="Shared", path="inner")
  %z: f32[batch, {width}] = ops.{op}(%y)
  return %z
}}

graph Model(%x: f32[batch, {width}]) {{
  %y: f32[batch, {width}] = call(%x, graph="Branching", path="branching")
  %z: f32[batch, {width}] = call(%y, graph="Shared", path="shared")
  return %z
}}

entry Model
"""


def test_what_is_computed_another_way_stands_alone_and_the_rest_follows():
    real, *twins = (
        parse_program(PARTLY.format(width=width, added=added, op=op))
        for width, added, op in ((40, 12, "relu"), (96, 13, "gelu"), (72, 15, "relu"))
    )
    result = generalise(real, twins, FIELDS)
    assert not result.aligned
    assert len(result.reasons) == 1 and "computes Branching another way" in result.reasons[0]
    # What the two have in common is two graphs: one that follows the config, and one with the numbers of this model.
    added = {name: str(graph["y"].attrs.get("x2")) for name, graph in result.program.graphs.items()}
    assert added == {"Shared": "config.buckets", "SharedB": "12", "Branching": "None", "Model": "None"}
    assert result.program.graphs["Branching"]["y"].attrs["graph"] == "SharedB"
    assert result.program.main["z"].attrs["graph"] == "Shared"


SHARED = """
graph {first}(%x: f32[batch, {width}]) of Linear {{
  %y: f32[batch, {width}] = ops.add(%x, x2={a})
  return %y
}}
{second}
graph Model(%x: f32[batch, {width}]) {{
  %y: f32[batch, {width}] = call(%x, graph="{first}", path="encoder")
  %z: f32[batch, {width}] = call(%y, graph="{other}", path="decoder")
  return %z
}}

entry Model
"""
SECOND = """
graph LinearB(%x: f32[batch, {width}]) of Linear {{
  %y: f32[batch, {width}] = ops.add(%x, x2={b})
  return %y
}}
"""


def stacked(width: int, a: int, b: int) -> Program:
    """Two modules of one class, one graph where they are equal."""
    second = "" if a == b else SECOND.format(width=width, b=b)
    other = "Linear" if a == b else "LinearB"
    return parse_program(SHARED.format(first="Linear", second=second, other=other, width=width, a=a, b=b))


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2)])
def test_modules_that_are_one_at_one_config_and_two_at_another(order):
    """What is a coincidence of the sizes is none of the package's."""
    programs = [stacked(40, 12, 12), stacked(96, 13, 24), stacked(72, 15, 32)]
    fields = FIELDS | {"config.intermediate_size": (12, 24, 32)}
    fields = {name: tuple(values[i] for i in order) for name, values in fields.items()}
    real, *twins = (programs[i] for i in order)
    result = generalise(real, twins, fields)
    assert result.reasons == ()
    assert sorted(result.program.graphs) == ["Linear", "LinearB", "Model"]
    added = [str(graph["y"].attrs["x2"]) for graph in list(result.program.graphs.values())[:2]]
    assert added == ["config.buckets", "config.intermediate_size"]


def test_without_a_twin_nothing_is_generalised():
    assert format_program(generalise(program(40, 52), [], FIELDS).program) == format_program(program(40, 52))


OTHERS = {
    "llama": (
        LlamaModel,
        [
            llama(head_dim=14),
            llama(vocab_size=97, hidden_size=48, num_attention_heads=6, num_key_value_heads=3, head_dim=24,
                  intermediate_size=36, rms_norm_eps=2e-6),
            llama(vocab_size=83, hidden_size=56, num_attention_heads=8, num_key_value_heads=2, head_dim=18,
                  intermediate_size=44, rms_norm_eps=3e-6),
        ],
        llama(vocab_size=71, hidden_size=90, num_attention_heads=9, num_key_value_heads=3, head_dim=26,
              intermediate_size=31, rms_norm_eps=5e-6),
    ),
    "gpt2": (
        GPT2Model,
        [
            gpt2(),
            gpt2(vocab_size=97, n_positions=72, n_embd=96, n_head=6, layer_norm_epsilon=2e-5, resid_pdrop=0.2),
            gpt2(vocab_size=83, n_positions=64, n_embd=56, n_head=4, layer_norm_epsilon=3e-5, embd_pdrop=0.2),
        ],
        gpt2(vocab_size=71, n_positions=50, n_embd=66, n_head=11, layer_norm_epsilon=4e-5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_a_program_is_right_at_a_config_nobody_has_seen(name):
    """Found at three configs, filled in at a fourth, compared with the model at the fourth."""
    model_class, seen, unseen = OTHERS[name]
    captures = [capture(config, model_class) for config in seen]
    programs = [list(lower(captured.program).values())[-1] for captured in captures]
    names = flat_fields(seen[0])
    fields = {f"config.{n}": tuple(flat_fields(c).get(n) for c in seen) for n in names}
    fields = {n: values for n, values in fields.items() if None not in values}
    result = generalise(programs[0], programs[1:], fields)
    assert [reason for reason in result.reasons if "drop" not in reason] == []
    deep = with_depth(result.program, captures[0].stacks, {})
    values = {f"config.{n}": value for n, value in flat_fields(unseen).items() if isinstance(value, int | float)}
    other = deep.map(lambda graph: graph.substituted(values))
    constants = capture(unseen, model_class).program.constants  # frequencies are data of the constructor
    other = Program(other.graphs, other.entry, other.outputs, {**other.constants, **constants})
    assert error_against(noisy_model(unseen, model_class), captures[0], other) < 1e-11


LAYERS = """graph Attention(%x: f32[batch, 8]) {
  %y: f32[batch, 8] = ops.multiply(%x, x2=0.5)
  return %y
}

graph Layer(%x: f32[batch, 8]) {
  %y: f32[batch, 8] = call(%x, graph="Attention", path="attention")
  return %y
}

graph Model(%x: f32[batch, 8]) {
  %y: f32[batch, 8] = loop(%x, graph="Layer", path="layers.{i}", start=0, count=2, carry=1)
  return %y
}

entry Model
"""


def test_a_number_here_that_is_a_parameter_there_becomes_one():
    """At the real config all layers agree, at that of the twin they do not."""
    twin = parse_program(
        LAYERS.replace("graph Attention(", "graph Attention<scale>(")
        .replace("graph Layer(", "graph Layer<scale>(")
        .replace("x2=0.5", "x2=scale")
        .replace('path="attention"', 'path="attention", scale=scale')
        .replace("carry=1", "carry=1, scale=(0.25, 0.125)")
    )
    fields = {"config.scales._0": (0.5, 0.25), "config.scales._1": (0.5, 0.125)}
    result = generalise(parse_program(LAYERS), [twin], fields)
    assert result.reasons == ()
    assert "scale=(config.scales._0, config.scales._1)" in format_program(result.program)


def test_labels_are_no_numbers_of_a_model_but_their_count() -> None:
    names = flat_fields(BertConfig(num_labels=3))
    assert names["num_labels"] == 3 and not [name for name in names if "label2id" in name or "id2label" in name]
