"""One number of several configs becomes an expression over their fields."""

import math

import pytest
from three_configs import FIELDS

from hf2khc.driver.generalise import generalise
from hf2khc.driver.search import Search
from hf2khc.ir.expr import Expr
from hf2khc.ir.text import format_program, parse_program


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
        ((25, 64, 16), "(config.hidden_size // config.heads // 2) ** 2"),
        ((23**2, 25**2, 29**2), "(2 * config.buckets - 1) ** 2"),
        ((264, 312, 420), "2 * config.buckets * (config.buckets - 1)"),
        ((-5, -8, -4), "-(config.hidden_size // config.heads // 2)"),
        ((41, 13, 21), "config.intermediate_size - 11"),
        ((6.5, 3.0, 4.0), "config.intermediate_size // 4 / 2"),
        ((88**-0.5, 169**-0.5, 153**-0.5), "(config.hidden_size + config.positions) ** -0.5"),
        ((20**-0.5, 32**-0.5, 16**-0.5), "(2 * config.hidden_size // config.heads) ** -0.5"),
        ((10**0.25, 16**0.25, 8**0.25), "(config.hidden_size // config.heads) ** 0.25"),
        ((13**0.5, 14**0.5, 4.0), "sqrt(config.buckets + 1)"),
        ((1.25 / 40**0.5, 1.25 / 96**0.5, 1.25 / 72**0.5), "1.25 / sqrt(config.hidden_size)"),
        ((12.0, 5.0, 7.0), "config.intermediate_size // 4 - 1.0"),
        ((40 / 52, 96 / 24, 72 / 32), "config.hidden_size / config.intermediate_size"),
        (((52 / 7) ** 0.5, (24 / 7) ** 0.5, (32 / 7) ** 0.5), "sqrt(config.intermediate_size / 7)"),
        ((40 // 4 // 2, 96 // 6 // 3, 72 // 9 // 3), "config.hidden_size // config.heads // config.kv_heads"),
        ((64, 92, 105), "config.heads + config.positions + config.buckets"),
        ((61, 87, 97), "config.positions + config.buckets + 1"),
        ((95, 145, 161), "2 * config.positions - 1"),
        ((160, 864, 648), "config.hidden_size * config.kv_heads ** 2"),
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


def test_a_number_of_layers_explains_what_nothing_else_does():
    """Rows of patches are as many as there are layers, and two, by chance: PVT."""
    fields = {"config.image_size": (64, 160, 96), "config.depth": (2, 8, 4)}
    assert Search(fields).value((4, 10, 6), "place") == Expr.of("config.depth + 2")
    assert Search(fields, layers={"config.depth"}).value((4, 10, 6), "place") == Expr.of("config.image_size // 16")
    assert Search(fields, layers={"config.depth"}).value((3, 9, 5), "place") == Expr.of("config.depth + 1")


def test_what_no_twin_changes_is_divided_by_what_each_does():
    search = Search(FIELDS | {"config.width": (64, 64, 64)})
    assert search.value((16, 10, 7), "place") == Expr.of("config.width // config.heads")


def test_a_few_less_than_what_was_found_beside_it():
    search = Search(FIELDS)
    search.value((5, 8, 4), "place")
    assert search.value((3, 6, 2), "place") == Expr.of("config.hidden_size // config.heads // 2 - 2")
    assert search.value((3, 6, 3), "place") == 3


def test_what_one_thing_leaves_of_another():
    search = Search(FIELDS)
    found = [search.value(values, "place") for values in ((48, 73, 81), (5, 8, 4), (43, 65, 77))]
    assert found[2] == Expr.of(f"{found[0]} - {found[1]}")


def test_what_does_not_differ_stays_a_number():
    assert Search(FIELDS).value((40, 40, 40), "place") == 40
    assert Search(FIELDS).value(((40, -1), (96, -1), (72, -1)), "place") == (Expr.of("config.hidden_size"), -1)


def test_what_is_left_of_a_width_that_is_always_the_same():
    search = Search(FIELDS)
    search.value((10, 16, 8), "head")
    assert search.value((22, 16, 24), "place") == Expr.of("32 - config.hidden_size // config.heads")
    # Of a size that nothing beside it has, no rest is left.
    assert Search(FIELDS).value((22, 16, 24), "place") == 22


def test_a_scale_that_yarn_stretches():
    fields = FIELDS | {"config.factor": (4.0, 7.0, 5.0), "config.mscale": (0.5, 0.7, 0.9)}
    heads = [n**-0.5 for n in (10, 16, 8)]
    stretched = tuple(s * (0.1 * math.log(f) + 1) ** 2 for s, f in zip(heads, (4, 7, 5), strict=True))
    text = "(config.hidden_size // config.heads) ** -0.5 * (0.1 * log(config.factor) + 1) ** 2"
    assert Search(fields).value(stretched, "place") == Expr.of(text)
    less = tuple(
        s * (0.1 * m * math.log(f) + 1) ** 2 for s, f, m in zip(heads, (4, 7, 5), (0.5, 0.7, 0.9), strict=True)
    )
    text = "(config.hidden_size // config.heads) ** -0.5 * (0.1 * config.mscale * log(config.factor) + 1) ** 2"
    assert Search(fields).value(less, "place") == Expr.of(text)


def test_a_residual_scaled_by_the_number_of_layers():
    fields = FIELDS | {"config.num_layers": (2, 5, 8), "config.scale_depth": (1.4, 2.8, 0.7)}
    values = tuple(s / n**0.5 for n, s in zip((2, 5, 8), (1.4, 2.8, 0.7), strict=True))
    assert Search(fields).value(values, "place") == Expr.of("config.scale_depth / sqrt(config.num_layers)")


def test_no_rate_of_dropout_is_a_part_of_a_size():
    positions = {"config.positions": (48, 73, 81)}
    rates, values = (0.37, 0.38, 0.39), (17, 27, 31)
    assert Search(positions | {"config.dropout": rates}).value(values, "place") == 17
    found = Search(positions | {"config.share": rates}).value(values, "place")
    assert found == Expr.of("int(config.positions * config.share)")


MOE_FIELDS = {
    "config.key_heads": (2, 3, 5),
    "config.key_dim": (8, 32, 24),
    "config.value_heads": (4, 12, 10),
    "config.value_dim": (12, 40, 16),
    "config.rotary": (0.25, 0.5, 0.75),
    "config.mlp_ratio": (4.0, 4.25, 4.5),
}


def test_a_stage_is_twice_as_wide_as_the_one_before():
    widths = (320, 816, 648)
    found = Search(FIELDS | MOE_FIELDS).value(widths, "place")
    assert found == Expr.of("int(2 * config.hidden_size * config.mlp_ratio)")


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
