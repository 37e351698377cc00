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
        ((-5, -8, -4), "-(config.hidden_size // config.heads // 2)"),
        ((41, 13, 21), "config.intermediate_size - 11"),
        ((6.5, 3.0, 4.0), "config.intermediate_size // 4 / 2"),
        ((12.0, 5.0, 7.0), "config.intermediate_size // 4 - 1.0"),
        (
            tuple(math.log(10000) / (n // 2 - 1) for n in (52, 24, 32)),
            "log(10000.0) / (config.intermediate_size // 2 - 1)",
        ),
    ],
)
def test_the_smallest_expression_that_fits_everywhere(values, text):
    search = Search(FIELDS)
    assert search.value(values, "place") == Expr.of(text)
    assert search.unexplained == []


def test_what_does_not_differ_stays_a_number():
    assert Search(FIELDS).value((40, 40, 40), "place") == 40
    assert Search(FIELDS).value(((40, -1), (96, -1), (72, -1)), "place") == (Expr.of("config.hidden_size"), -1)


MOE_FIELDS = {
    "config.key_heads": (2, 3, 5),
    "config.key_dim": (8, 32, 24),
    "config.value_heads": (4, 12, 10),
    "config.value_dim": (12, 40, 16),
    "config.rotary": (0.25, 0.5, 0.75),
    "config.mlp_ratio": (4.0, 4.25, 4.5),
}


def test_a_size_is_the_sum_of_sizes_beside_it():
    """Queries, keys and values behind one another: no field says how many channels that makes."""
    search = Search(MOE_FIELDS)
    keys, values = (16, 96, 120), (48, 480, 160)
    both = tuple(2 * k + v for k, v in zip(keys, values, strict=True))
    assert search.value(both, "first") == both[0] and len(search.unexplained) == 1
    assert search.value(keys, "place") == Expr.of("config.key_heads * config.key_dim")
    assert search.value(values, "place") == Expr.of("config.value_heads * config.value_dim")
    found = search.value(both, "second")
    assert len(search.unexplained) == 1
    for place in range(3):
        env = {name: column[place] for name, column in MOE_FIELDS.items()}
        assert found.evaluate(env) == both[place]


def test_a_part_of_a_size():
    search = Search(MOE_FIELDS)
    assert search.value((2, 16, 18), "place") == Expr.of("int(config.key_dim * config.rotary)")
    assert search.value((32, 136, 108), "place") == Expr.of("int(config.key_dim * config.mlp_ratio)")
    assert search.unexplained == []


IMAGE_FIELDS = {"config.image_size": (224, 64, 121), "config.widths._1": (144, 144, 168)}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((56, 16, 30), "config.image_size // 4"),
        ((56, 16, 31), "(config.image_size + 3) // 4"),
        ((7, 2, 4), "(config.image_size + 31) // 32"),
        ((3136, 256, 31**2), "((config.image_size + 3) // 4) ** 2"),
        ((50, 5, 10), "(config.image_size // 32) ** 2 + 1"),
        ((224 / 7, 64 / 2, 121 / 4), "config.image_size / ((config.image_size + 31) // 32)"),
        ((48**-0.5, 48**-0.5, 56**-0.5), "(config.widths._1 // 3) ** (-0.5)"),
        ((48**0.5, 48**0.5, 56**0.5), "sqrt(config.widths._1 // 3)"),
    ],
)
def test_what_strides_leave_of_an_image_and_heads_of_a_width(values, text):
    search = Search(IMAGE_FIELDS)
    assert search.value(values, "place") == Expr.of(text)


def test_a_size_is_a_product_of_what_stands_beside_it():
    search = Search(IMAGE_FIELDS)
    pixels = tuple(side**2 * width for side, width in zip((56, 16, 31), (144, 144, 168), strict=True))
    assert search.value(pixels, "first") == pixels[0] and search.unexplained
    assert search.value((144, 144, 168), "place") == Expr.of("config.widths._1")
    assert search.value(pixels, "second") == Expr.of("((config.image_size + 3) // 4) ** 2 * config.widths._1")


def test_tokens_stand_beside_the_patches():
    fields = {"config.image_size": (224, 64, 121), "config.num_registers": (9, 5, 7)}
    search, patches = Search(fields), (14 * 14, 4 * 4, 7 * 7)
    assert search.value(patches, "place") == Expr.of("(config.image_size // 16) ** 2")
    counted = tuple(n + more + 1 for n, more in zip(patches, (9, 5, 7), strict=True))
    assert search.value(counted, "place") == Expr.of("(config.image_size // 16) ** 2 + config.num_registers + 1")
    few = tuple(n + 10 for n in patches)
    assert search.value(few, "place") == Expr.of("(config.image_size // 16) ** 2 + 10")
    assert search.unexplained == []
    assert search.value(tuple(n + 100 for n in patches), "place") == 14 * 14 + 100 and search.unexplained


def test_a_sum_is_found_where_its_part_comes_later():
    fields = {"config.image_size": (224, 64, 121)}
    text = "graph Model(%x: f32[batch, {a}], %y: f32[batch, {b}]) {{\n  return %x, %y\n}}\n\nentry Model\n"
    real, *twins = (parse_program(text.format(a=side**2 + 10, b=side**2)) for side in (14, 4, 7))
    result = generalise(real, twins, fields)
    side = "(config.image_size // 16) ** 2"
    assert result.reasons == () and f"batch, {Expr.of(side + ' + 10')}]" in format_program(result.program)


NONE = [
    (56, 16, 29),
    (20, 5, 11),
    (7, 2, 2),
    (0.25, 0.25, 0.24),
    (0.0, -1.0, 1e-300),
    (1e-300, 0.0, 1.0),
    (math.inf, 1.0, math.nan),
]


@pytest.mark.parametrize("values", NONE)
def test_what_no_stride_leaves(values):
    search = Search(IMAGE_FIELDS)
    assert search.value(values, "place") == values[0] and search.unexplained


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
