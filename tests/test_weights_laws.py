"""Every law of the weight map, each broken by a mutation."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from hf2khc.diagnostics import ConversionError
from hf2khc.weights.checkpoint import SINGLE, Checkpoint
from hf2khc.weights.laws import Variable, check_laws
from hf2khc.weights.rows import (
    Alias,
    NotConsumed,
    Origin,
    Row,
    WeightMap,
    bind_rows,
    from_json,
    read_weight_map,
    to_json,
    write_weight_map,
)

TENSORS = {
    "fused.weight": np.arange(36, dtype=np.float32).reshape(12, 3),
    "dense.weight": np.arange(15, dtype=np.float32).reshape(5, 3),
    "embed.weight": np.ones((7, 3), np.float16),
    "head.weight": np.ones((7, 3), np.float16),
    "norm.scale": np.ones((3,), np.float32),
    "steps": np.array([4]),
}
UNBOUND = (
    Row("query/kernel", ("fused",), "transpose(slice(x, (0, 0), (4, 3)))", (3, 4), "float32"),
    Row("key/kernel", ("fused",), "transpose(slice(x, (4, 0), (4, 3)))", (3, 4), "float32"),
    Row("value/kernel", ("fused",), "transpose(split(x, 3, axis=0)[2])", (3, 4), "float32"),
    Row("dense/kernel", ("dense",), "transpose(x)", (3, 5), "float32"),
    Row("embedding", ("embed",), "x", (7, 3), "float32"),
    Row("norm/scale", ("norm",), "x + 1", (3,), "float32"),
    Row("positions", (), "reshape(x, (2, 2))", (2, 2), "int32", constant="index"),
)
ORIGINS = {name.split(".")[0]: Origin((name,)) for name in TENSORS}
CONSTANTS = {"index": np.arange(4)}
LAYOUT = [Variable(row.keras, row.keras_shape, row.keras_dtype) for row in UNBOUND]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("checkpoint")
    save_file(TENSORS, directory / SINGLE)
    return Checkpoint(directory)


@pytest.fixture
def good(checkpoint):
    rows = bind_rows(UNBOUND, ORIGINS, checkpoint)
    return WeightMap(rows, (Alias("head.weight", "embed.weight"),), (NotConsumed("steps", "a counter of training"),))


def changed(weights, keras, **fields):
    return replace(weights, rows=tuple(replace(r, **fields) if r.keras == keras else r for r in weights.rows))


def dropped(weights, keras):
    return replace(weights, rows=tuple(row for row in weights.rows if row.keras != keras))


def broken(weights, checkpoint, code, *words, layout=LAYOUT, constants=CONSTANTS):
    with pytest.raises(ConversionError) as caught:
        check_laws(weights, layout, checkpoint, constants)
    texts = {d.code: d.render() for d in caught.value.diagnostics}
    assert code in texts, texts
    assert all(word in texts[code] for word in words), texts[code]


def test_a_good_map(good, checkpoint):
    check_laws(good, LAYOUT, checkpoint, CONSTANTS)
    check_laws(good, LAYOUT, None, CONSTANTS)


def test_json_round_trip(good, tmp_path):
    assert from_json(to_json(good)) == good
    write_weight_map(tmp_path / "weight_map.json", good)
    assert read_weight_map(tmp_path / "weight_map.json") == good
    with pytest.raises(ConversionError, match="format 2"):
        from_json({**to_json(good), "format": 2})


def test_variable_not_assigned(good, checkpoint):
    broken(dropped(good, "dense/kernel"), checkpoint, "weight-assignment", "dense/kernel: not assigned")


def test_variable_assigned_twice(good, checkpoint):
    weights = replace(good, rows=good.rows + good.rows[3:4])
    broken(weights, checkpoint, "weight-assignment", "dense/kernel: assigned 2 times")


def test_variable_unknown(good, checkpoint):
    rows = tuple(replace(r, keras="dense/kern") if r.keras == "dense/kernel" else r for r in good.rows)
    weights = replace(good, rows=rows)
    broken(weights, checkpoint, "weight-assignment", "no such variable", "dense/kernel: not assigned")


def test_two_variables_of_one_path(good, checkpoint):
    broken(good, checkpoint, "weight-assignment", "two variables", layout=[*LAYOUT, LAYOUT[0]])


@pytest.mark.parametrize(
    ("keras", "fields", "words"),
    [
        ("dense/kernel", {"transform": "x"}, ["gives (5, 3)"]),
        ("dense/kernel", {"keras_shape": (5, 3)}, ["the row says"]),
        ("dense/kernel", {"keras_dtype": "float16"}, ["the row says"]),
        ("dense/kernel", {"keras_dtype": "int32"}, ["cannot hold"]),
        ("dense/kernel", {"transform": "roll(x)"}, ["cannot contain"]),
        ("query/kernel", {"transform": "transpose(slice(x, (10, 0), (4, 3)))"}, ["does not fit"]),
        ("positions", {"constant": "other"}, ["no constant"]),
    ],
)
def test_shapes(good, checkpoint, keras, fields, words):
    broken(changed(good, keras, **fields), checkpoint, "weight-shape", keras, *words)


def test_tensor_not_accounted_for(good, checkpoint):
    broken(replace(good, not_consumed=()), checkpoint, "weight-consumption", "steps: neither")
    broken(replace(good, aliases=()), checkpoint, "weight-consumption", "head.weight: neither")


def test_tensor_accounted_for_twice(good, checkpoint):
    items = (*good.not_consumed, NotConsumed("dense.weight", "unused"))
    weights = replace(good, not_consumed=items)
    broken(weights, checkpoint, "weight-consumption", "dense.weight: consumed and not consumed")


def test_a_part_of_a_tensor_may_be_listed(good, checkpoint):
    rows = tuple(row for row in good.rows if row.keras != "value/kernel")
    layout = [variable for variable in LAYOUT if variable.path != "value/kernel"]
    broken(replace(good, rows=rows), checkpoint, "weight-count", "12 of 36 elements unused", layout=layout)
    third, second = (f"slice(x, ({first}, 0), (4, 3))" for first in (8, 4))
    unread = replace(good, rows=rows, not_consumed=(*good.not_consumed, NotConsumed("fused.weight", "unread", third)))
    check_laws(unread, layout, checkpoint, CONSTANTS)
    wrong = replace(good, rows=rows, not_consumed=(*good.not_consumed, NotConsumed("fused.weight", "unread", second)))
    broken(wrong, checkpoint, "weight-count", "12 of 36 elements unused, 12 used more than once", layout=layout)


def test_reason_required_and_names_exist(good, checkpoint):
    weights = replace(good, not_consumed=(NotConsumed("steps", ""),))
    broken(weights, checkpoint, "weight-consumption", "without a reason")
    items = (*good.not_consumed, NotConsumed("stepz", "a counter"))
    broken(replace(good, not_consumed=items), checkpoint, "weight-consumption", "stepz: not in the checkpoint")


def test_row_of_another_file(good, checkpoint):
    weights = changed(good, "norm/scale", hf_dtypes=("float16",))
    broken(weights, checkpoint, "weight-consumption", "the row says float16")


def test_alias_must_repeat(good, checkpoint):
    broken(replace(good, aliases=(Alias("head.weight", "steps"),)), checkpoint, "weight-alias", "not consumed")
    weights = replace(dropped(good, "norm/scale"), aliases=(*good.aliases, Alias("norm.scale", "dense.weight")))
    broken(weights, checkpoint, "weight-alias", "differs from dense.weight")


@pytest.mark.parametrize(
    ("keras", "transform", "words"),
    [
        ("key/kernel", "transpose(slice(x, (3, 0), (4, 3)))", ["3 of 36 elements unused", "3 used more than once"]),
        ("value/kernel", "transpose(split(x, 3, axis=0)[1])", ["12 of 36 elements unused"]),
        ("value/kernel", "transpose(slice(x, (0, 0), (4, 3)))", ["12 of 36 elements unused, 12 used more than once"]),
        ("dense/kernel", "take(transpose(x), [0, 0, 2], axis=0)", ["5 of 15 elements unused"]),
        ("dense/kernel", "transpose(x + sum(x))", []),
    ],
)
def test_every_element_once(good, checkpoint, keras, transform, words):
    weights = changed(good, keras, transform=transform)
    if words:
        broken(weights, checkpoint, "weight-count", *words)
    else:  # a row that computes uses the whole tensor
        check_laws(weights, LAYOUT, checkpoint, CONSTANTS)


def test_one_tensor_in_two_variables(good, checkpoint):
    row = next(r for r in good.rows if r.keras == "dense/kernel")
    weights = replace(good, rows=(*good.rows, replace(row, keras="copy/kernel")))
    layout = [*LAYOUT, Variable("copy/kernel", (3, 5), "float32")]
    broken(weights, checkpoint, "weight-count", "15 used more than once", layout=layout)


def test_binding_composes_with_the_transform_of_loading(tmp_path):
    save_file({"e.0": np.zeros((2, 3)), "e.1": np.ones((2, 3)), "b": np.ones(4)}, tmp_path / SINGLE)
    row = Row("v", ("experts", "bias"), "concatenate([reshape(transpose(x0, (0, 2, 1)), (12,)), x1])", (16,), "float64")
    origins = {"experts": Origin(("e.0", "e.1"), "stack([x0, x1])"), "bias": Origin(("b",))}
    (bound,) = bind_rows([row], origins, Checkpoint(tmp_path))
    assert bound.hf == ("e.0", "e.1", "b") and bound.hf_shapes == ((2, 3), (2, 3), (4,))
    assert bound.transform == "concatenate([reshape(transpose(stack([x0, x1]), (0, 2, 1)), (12,)), x2])"
    check_laws(WeightMap((bound,)), [Variable("v", (16,), "float64")], Checkpoint(tmp_path))


def test_binding_names_everything_that_is_missing(checkpoint):
    with pytest.raises(ConversionError) as caught:
        bind_rows(UNBOUND, {k: v for k, v in ORIGINS.items() if k not in ("fused", "norm")}, checkpoint)
    assert "fused: no tensor" in str(caught.value) and "norm: no tensor" in str(caught.value)
    with pytest.raises(ConversionError, match="fused.w: not in the checkpoint"):
        bind_rows(UNBOUND, {**ORIGINS, "fused": Origin(("fused.w",))}, checkpoint)


def test_the_fixture_package_keeps_the_laws(tmp_path):
    spec = importlib.util.spec_from_file_location("tiny_model", Path(__file__).parent / "tiny_bert" / "model.py")
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    pytest.importorskip("transformers")
    tiny.save_checkpoint(tmp_path)
    weights = tiny.weight_map(tmp_path)
    layout = [Variable(r.keras, r.keras_shape, r.keras_dtype) for r in weights.rows]
    check_laws(weights, layout, Checkpoint(tmp_path), tiny.CONSTANTS)
