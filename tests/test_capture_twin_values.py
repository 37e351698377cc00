"""Numbers that may stand in the place of those in a config."""

import copy

import pytest
import transformers

from hf2khc.capture.twin_fields import Field, numeric_fields, set_field
from hf2khc.capture.twin_values import Proposer


def test_small_numbers_stay_small_from_twin_to_twin():
    field = Field("size", "size", "", 2)
    for _ in range(4):
        (((_, value),),) = [Proposer([field]).groups()[0][0].items()]
        field = Field("size", "size", "", value)
        assert 3 <= value <= 8


def test_two_equal_small_numbers_become_different_ones():
    fields = [Field(name, name, "", 2) for name in ("one", "other")]
    groups = Proposer(fields).groups()
    assert groups[0][0]["one"] != groups[1][0]["other"]


def test_a_tuple_of_the_config_stays_one():
    config = transformers.ReformerConfig(axial_pos_shape=(16, 24))
    set_field(config, "axial_pos_shape", [24, 32])
    assert config.axial_pos_shape == (24, 32)


def test_parts_of_something_become_other_parts():
    (first,), (second,) = (
        [group[0] for group in Proposer([Field("part", "part", "", value)]).groups()] for value in (0.25, 0.5)
    )
    assert (first["part"] * 8) % 1 == 0 == (second["part"] * 8) % 1
    assert first["part"] != 0.25 and second["part"] != 0.5


def test_heads_that_are_divided_are_left_in_another_number():
    sizes = {"num_attention_heads": 4, "head_ratio": 2, "hidden_size": 32}
    for values in Proposer([Field(name, name, "", value) for name, value in sizes.items()]).groups()[0]:
        heads, ratio = values["num_attention_heads"], values["head_ratio"]
        assert heads % ratio == 0 and heads // ratio not in (1, 2)


def test_a_part_comes_back_in_no_twin_and_stays_a_quarter():
    field, found = Field("partial_rotary_factor", "partial_rotary_factor", "", 0.5), [0.5]
    for _ in range(2):
        (group,) = Proposer([field], {field.path: 0.5} if len(found) > 1 else {}).groups()
        field = Field(field.path, field.name, "", group[0][field.path])
        found.append(field.value)
    assert found == [0.5, 0.75, 0.25]


def test_an_odd_number_of_entries_that_are_rotated_stays_odd():
    """A quarter of twelve are two pairs, one of which is half there: another way than an even number."""
    values = real = {"num_attention_heads": 4, "hidden_size": 32, "head_dim": 12, "partial_rotary_factor": 0.25}
    for apart in ({}, real):
        groups = Proposer([Field(name, name, "", value) for name, value in values.items()], apart).groups()
        before, values = values, {name: value for group in groups for name, value in group[0].items()}
        assert int(values["head_dim"] * values["partial_rotary_factor"]) % 2
        assert values.keys() == before.keys() and all(values[name] != before[name] for name in values)


@pytest.mark.parametrize("size", [224, 64, (64, 64), {"height": 64, "width": 64}])
def test_the_size_of_images_is_another_one_in_each_twin(size):
    config = transformers.PvtV2Config(image_size=size, hidden_sizes=[16, 32, 40, 64], depths=[1, 1, 1, 1])
    config.image_size = size
    found = []
    for _ in range(3):
        found.append(copy.deepcopy(config.image_size))
        (group,) = [g for g in Proposer(list(numeric_fields(config))).groups() if "image_size" in next(iter(g[0]))]
        for path, value in group[0].items():
            set_field(config, path, value)
    assert len(set(map(str, found))) == 3 and all(type(one) is type(size) for one in found)


def test_a_grid_of_patches_is_another_one_in_each_twin():
    sizes, found = {"image_size": 32, "patch_size": 2}, []
    for _ in range(3):
        found.append(sizes["image_size"] // sizes["patch_size"])
        (group,) = Proposer([Field(name, name, "", value) for name, value in sizes.items()]).groups()
        # What a window of four divides.
        sizes = next(values for values in group if values["image_size"] // values["patch_size"] % 4 == 0)
    assert len(set(found)) == 3


def test_windows_divide_a_grid_as_often_as_before():
    sizes = {"image_size": 32, "patch_size": 2, "window_size": 4}
    (group,) = Proposer([Field(name, name, "", value) for name, value in sizes.items()]).groups()
    image, patch, window = group[0].values()
    assert (image, patch, window) != tuple(sizes.values()) and image // patch == 4 * window
    assert [set(values) for values in group[1:]] == [{"image_size", "patch_size"}] * (len(group) - 1)


def test_every_entry_of_a_list_changes():
    (group,) = Proposer([Field("hidden_sizes", "hidden_sizes", "", [24, 32, 40, 48])]).groups()
    assert all(new != old for new, old in zip(group[0]["hidden_sizes"], [24, 32, 40, 48], strict=True))


def test_three_counts_of_heads_stay_three_that_divide_one_another():
    counts = {"mamba_num_heads": 8, "num_attention_heads": 4, "num_key_value_heads": 2}
    fields = [Field(name, name, "", value) for name, value in {**counts, "hidden_size": 32}.items()]
    for values in Proposer(fields).groups()[0]:
        whole, heads, few = (values[name] for name in counts)
        assert whole > heads > few and whole % heads == heads % few == 0
