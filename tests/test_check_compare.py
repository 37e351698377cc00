"""The rule of the proof, on hand-made arrays: each way to be wrong is found."""

import numpy as np
import pytest

from hf2khc.check.cases import build_cases, choose_sizes, load_arrays, save_arrays
from hf2khc.check.compare import FLOOR, compare, explain
from hf2khc.check.proof import Proof
from hf2khc.check.signature import package_inputs, package_outputs
from hf2khc.diagnostics import ConversionError

SIGNATURE = {
    "inputs": {
        "input_ids": {"name": "token_ids", "dtype": "int32", "shape": ["batch", "seq"]},
        "attention_mask": {"name": "padding_mask", "dtype": "int32", "shape": ["batch", "seq"], "default": "ones",
                           "like": "token_ids"},
    },
    "outputs": {
        "hidden": {"name": "sequence_output", "shape": ["batch", "seq", 4], "dtype": "float32"},
        "pooled": {"name": "pooled_output", "shape": ["batch", 4], "dtype": "float32"},
        "best": {"name": "best", "shape": ["batch"], "dtype": "int64"},
    },
}  # fmt: skip
INPUTS = {"input_ids": np.ones((2, 3), np.int64), "attention_mask": np.array([[1, 1, 1], [0, 1, 1]])}
GENERATOR = np.random.default_rng(0)
EXACT = {"hidden": GENERATOR.normal(size=(2, 3, 4)), "pooled": GENERATOR.normal(size=(2, 4)), "best": np.array([5, 7])}
THEIRS = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in EXACT.items()}


def rows(ours, exact=EXACT, theirs=THEIRS, signature=SIGNATURE, inputs=INPUTS):
    return {row.output: row for row in compare(signature, "case", "torch", inputs, ours, theirs, exact)}


def altered(key, function, source=THEIRS):
    copy = {name: array.copy() for name, array in source.items()}
    copy[key] = function(copy[key])
    return copy


def put(index, value):
    def change(array):
        array[index] = value
        return array

    return change


def test_equal_outputs_hold():
    found = rows(THEIRS)
    assert all(row.holds for row in found.values())
    assert found["hidden"].bound == FLOOR and found["hidden"].compared == 20 and found["hidden"].apart == 4
    assert 0 < found["hidden"].ours == found["hidden"].theirs < 1e-7


@pytest.mark.parametrize("size", [2.5e-6, -1e-3])
def test_an_error_above_the_bound_fails(size):
    magnitude = rows(THEIRS)["hidden"].magnitude
    row = rows(altered("hidden", lambda a: a + np.float32(size * magnitude)))["hidden"]
    assert not row.holds and row.ours == pytest.approx(abs(size), rel=0.2)
    assert "is off by" in explain(row).message


def test_the_bound_follows_the_error_of_transformers():
    noisy = altered("hidden", lambda a: a + np.float32(1e-4))
    assert rows(altered("hidden", lambda a: a + np.float32(3.9e-4)), theirs=noisy)["hidden"].holds
    assert not rows(altered("hidden", lambda a: a + np.float32(4.2e-4)), theirs=noisy)["hidden"].holds


def test_masked_rows_are_reported_apart():
    row = rows(altered("hidden", put((1, 0), 100.0)))["hidden"]
    assert row.holds and row.ours_apart > 10 and row.theirs_apart < 1e-6
    assert rows(altered("hidden", put((1, 0), np.nan)))["hidden"].holds
    assert not rows(altered("hidden", put((1, 1), 100.0)))["hidden"].holds
    without = {"input_ids": INPUTS["input_ids"]}
    assert not rows(altered("hidden", put((1, 0), 100.0)), inputs=without)["hidden"].holds


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_fail(value):
    row = rows(altered("pooled", put((0, 1), value)))["pooled"]
    assert not row.holds and "not finite" in row.problem
    infinite = altered("pooled", put((0, 1), np.inf), EXACT)
    assert not rows(THEIRS, exact=infinite)["pooled"].holds
    assert rows(altered("pooled", put((0, 1), value)), exact=infinite)["pooled"].holds == (value == np.inf)


def test_integers_must_be_equal():
    row = rows(altered("best", put(1, 6)))["best"]
    assert not row.holds and row.ours == 0.5
    assert "dtype" in rows(altered("best", lambda a: a.astype(np.float32)))["best"].problem


def test_missing_outputs_and_wrong_shapes_fail():
    assert "the package returns no" in rows({k: v for k, v in THEIRS.items() if k != "best"})["best"].problem
    assert "transformers returns no" in rows(THEIRS, exact={"hidden": EXACT["hidden"]})["best"].problem
    assert "shape (4, 2)" in rows(altered("pooled", np.transpose))["pooled"].problem
    hidden = {"hidden": np.zeros((2, 3, 4))}
    everything = {"input_ids": INPUTS["input_ids"], "attention_mask": np.zeros((2, 3))}
    assert "no element" in rows(hidden, hidden, hidden, inputs=everything)["hidden"].problem


def test_zero_reference_counts_absolute_errors():
    zero = {**EXACT, "pooled": np.zeros((2, 4))}
    assert rows({**THEIRS, "pooled": np.zeros((2, 4), np.float32)}, zero, zero)["pooled"].holds
    assert not rows({**THEIRS, "pooled": np.full((2, 4), 1e-5, np.float32)}, zero, zero)["pooled"].holds


def test_permuted_outputs_compare_in_the_order_of_the_package():
    entry = {"name": "y", "shape": ["batch", 5, 6, 3], "dtype": "float32", "permute": [0, 2, 3, 1]}
    signature = {"inputs": {}, "outputs": {"map": entry}}
    exact = {"map": GENERATOR.normal(size=(2, 3, 5, 6))}
    ours = {"map": exact["map"].transpose(0, 2, 3, 1).astype(np.float32)}
    theirs = {"map": exact["map"].astype(np.float32)}
    assert rows(ours, exact, theirs, signature)["map"].holds
    assert not rows(theirs, exact, theirs, signature)["map"].holds


def test_inputs_are_renamed_permuted_and_filled():
    signature = {"inputs": {
        "pixel_values": {"name": "images", "dtype": "float32", "shape": ["batch", 4, 5, 3], "permute": [0, 2, 3, 1]},
        "ids": {"name": "token_ids", "dtype": "int32", "shape": ["batch", "seq"]},
        "mask": {"name": "padding_mask", "dtype": "int32", "shape": ["batch", "seq"], "default": "ones",
                 "like": "token_ids"},
        "where": {"name": "positions", "dtype": "int32", "shape": ["batch", "seq"], "default": "arange",
                  "like": "token_ids"},
    }}  # fmt: skip
    pixels = GENERATOR.normal(size=(2, 3, 4, 5))
    found = package_inputs(signature, {"pixel_values": pixels, "ids": np.ones((2, 3), np.int64)})
    assert found["images"].shape == (2, 4, 5, 3) and found["images"].dtype == np.float32
    np.testing.assert_array_equal(found["padding_mask"], np.ones((2, 3)))
    np.testing.assert_array_equal(found["positions"], [[0, 1, 2]] * 2)
    assert found["token_ids"].dtype == found["positions"].dtype == np.int32
    with pytest.raises(ConversionError) as caught:
        package_inputs(signature, {"pixel_values": pixels, "labels": np.ones(2)})
    assert "labels: not in" in str(caught.value) and "ids: not given" in str(caught.value)


def test_outputs_that_the_signature_does_not_name():
    with pytest.raises(ConversionError, match="extra"):
        package_outputs(SIGNATURE, {"sequence_output": np.ones(1), "extra": np.ones(1)})
    with pytest.raises(ConversionError, match="one tensor"):
        package_outputs(SIGNATURE, np.ones(1))


def test_sizes_differ_from_the_traced_ones():
    for seq in range(2, 20):
        for size in choose_sizes({"batch": 2, "seq": seq, "target": seq + 1}):
            assert size["batch"] == 3 and size["seq"] != seq and size["target"] != seq + 1
    first, second = choose_sizes({"batch": 2, "seq": 7})
    assert first != second
    assert max(s["seq"] for s in choose_sizes({"batch": 2, "seq": 7}, {"seq": 6})) <= 6


def test_sizes_are_those_for_which_the_model_was_traced():
    for least in (2, 5, 7, 400):
        first, second = choose_sizes({"batch": 2, "frames": 401}, smallest={"frames": least})
        assert first != second and least <= min(first["frames"], second["frames"])
        # One sample more of thousands is the same number of frames.
        assert abs(first["frames"] - second["frames"]) > 40


def test_cases_are_named_and_cover_the_paddings():
    calls = []
    cases = build_cases(lambda *a: calls.append(a) or {}, [{"batch": 3, "seq": 4}, {"batch": 3, "seq": 5}], masked=True)
    assert len(cases) == 6 and {padding for _, _, padding in calls} == {"none", "right", "left"}
    assert len(build_cases(lambda *a: {}, [{"batch": 3}], masked=False)) == 1


def test_arrays_survive_the_disk(tmp_path):
    groups = {"a case, x=1": {"past/key.0": np.ones((2, 3), np.float32), "b": np.array(True)}, "empty": {}}
    save_arrays(tmp_path / "f.npz", groups)
    found = load_arrays(tmp_path / "f.npz")
    assert list(found) == list(groups) and list(found["a case, x=1"]) == ["past/key.0", "b"]
    np.testing.assert_array_equal(found["a case, x=1"]["b"], True)


def test_a_proof_is_json():
    found = rows(altered("best", put(1, 6)))
    proof = Proof(False, tuple(found.values()), (), (explain(found["best"]),))
    assert Proof.from_json(proof.to_json()) == proof
