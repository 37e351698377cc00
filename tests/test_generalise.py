"""Numbers of several programs of one architecture become expressions over config fields."""

import math

import pytest
from float64_reference import error_against, noisy_model
from tiny_models import gpt2, llama
from transformers import GPT2Model, LlamaModel

from hf2khc.capture.frontend import capture
from hf2khc.driver.compile import lower
from hf2khc.driver.config_fields import flat_fields
from hf2khc.driver.depth import with_depth
from hf2khc.driver.generalise import Search, generalise
from hf2khc.ir.expr import Expr
from hf2khc.ir.graph import Program
from hf2khc.ir.text import format_program, parse_program

FIELDS = {
    "config.hidden_size": (40, 96, 72),
    "config.heads": (4, 6, 9),
    "config.kv_heads": (2, 3, 3),
    "config.intermediate_size": (52, 24, 32),
    "config.positions": (48, 73, 81),
    "config.buckets": (12, 13, 15),
    "config.epsilon": (1e-5, 2e-5, 3e-5),
    "config.name": ("a", "b", "c"),
    "config.switch": (True, True, True),
}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((40, 96, 72), "config.hidden_size"),
        ((10, 16, 8), "config.hidden_size // config.heads"),
        ((10**-0.5, 16**-0.5, 8**-0.5), "(config.hidden_size // config.heads) ** (-0.5)"),
        ((120, 288, 216), "3 * config.hidden_size"),
        ((20, 48, 24), "config.hidden_size * config.kv_heads // config.heads"),
        ((50, 75, 83), "config.positions + 2"),
        ((1e-5, 2e-5, 3e-5), "config.epsilon"),
        ((6, 7, 8), "config.buckets - config.buckets // 2"),
        ((3, 3, 4), "config.buckets // 2 - config.buckets // 4"),
        ((5, 8, 4), "config.hidden_size // config.heads // 2"),
        ((40**0.5, 96**0.5, 72**0.5), "sqrt(config.hidden_size)"),
        ((0.1 * math.log(12) + 1, 0.1 * math.log(13) + 1, 0.1 * math.log(15) + 1), "0.1 * log(config.buckets) + 1"),
        ((2048, 3072, 4608), "512 * config.heads"),
    ],
)
def test_the_smallest_expression_that_fits_everywhere(values, text):
    search = Search(FIELDS)
    assert search.value(values, "place") == Expr.of(text)
    assert search.unexplained == []


def test_what_does_not_differ_stays_a_number():
    assert Search(FIELDS).value((40, 40, 40), "place") == 40
    assert Search(FIELDS).value(((40, -1), (96, -1), (72, -1)), "place") == (Expr.of("config.hidden_size"), -1)


@pytest.mark.parametrize(
    "values", [(41, 90, 72), (2048, 3072, 2048), ("a", "b", "c"), (True, False, True), (None, 3, 4)]
)
def test_what_follows_from_no_field_is_said(values):
    search = Search(FIELDS)
    assert search.value(values, "Block.x.units") == values[0]
    assert len(search.unexplained) == 1 and search.unexplained[0].startswith("Block.x.units: ")


def test_numbers_inside_sizes():
    sizes = tuple(Expr.of(f"seq * {n}") for n in (40, 96, 72))
    assert Search(FIELDS).value(sizes, "place") == Expr.of("seq * config.hidden_size")


def test_one_twin_can_agree_by_chance_two_hardly():
    """Head size 10 with 8 heads, then 12 with 10: both are the number of heads plus two."""
    fields = {"config.hidden_size": (80, 120, 48), "config.heads": (8, 10, 6)}
    one = Search({name: values[:2] for name, values in fields.items()})
    assert one.value((10, 12), "place") == Expr.of("config.heads + 2")
    assert Search(fields).value((10, 12, 8), "place") == Expr.of("config.heads + 2")
    other = {"config.hidden_size": (80, 120, 56), "config.heads": (8, 10, 4)}
    assert Search(other).value((10, 12, 14), "place") == Expr.of("config.hidden_size // config.heads")


TEXT = """
graph Model(%x: f32[batch, {width}]) {{
  param @w: f32[{width}, {units}]
  %y: f32[batch, {units}] = layers.Dense(%x, @w, units={units}, use_bias=false)
  %z: f32[batch, {units}] = ops.{op}(%y)
  return %z
}}

entry Model
"""


def program(width: int, units: int, op: str = "relu") -> Program:
    return parse_program(TEXT.format(width=width, units=units, op=op))


def test_a_program_follows_its_config():
    result = generalise(program(40, 52), [program(96, 24), program(72, 32)], FIELDS)
    assert result.reasons == ()
    text = TEXT.format(width="config.hidden_size", units="config.intermediate_size", op="relu")
    assert format_program(result.program).strip() == text.strip()


def test_another_structure_is_reported_and_nothing_generalised():
    result = generalise(program(40, 52), [program(96, 24), program(72, 32, "gelu")], FIELDS)
    assert len(result.reasons) == 1 and "computes Model another way" in result.reasons[0]
    assert format_program(result.program) == format_program(program(40, 52))


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
