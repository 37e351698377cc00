"""A row that two cases share has one result, or transformers is told to have two."""

import numpy as np

from hf2khc.check.contradiction import contradiction

SIGNATURE = {"outputs": {"y": {"name": "y"}}}
# The first row is the same in both cases, the second is padded in one of them.
NONE = {"ids": np.array([[1, 2], [3, 4]]), "mask": np.array([[1, 1], [1, 1]])}
RIGHT = {"ids": np.array([[1, 2], [3, 0]]), "mask": np.array([[1, 1], [1, 0]])}
CASES = {"none": NONE, "right": RIGHT}


def found(ours: float, theirs: float, cases: dict = CASES) -> str | None:
    """What is said where the shared row differs by that much between the cases; the other row always does."""

    def outputs(difference: float) -> dict:
        return {"none": {"y": np.array([[0.5], [1.0]])}, "right": {"y": np.array([[0.5 + difference], [2.0]])}}

    told = contradiction(SIGNATURE, cases, outputs(ours), outputs(theirs))
    return told and told.location


def test_a_row_with_two_results_in_transformers_alone() -> None:
    assert found(0.0, 0.1) == "y, row 0 of 'none' and of 'right'"


def test_what_the_package_does_as_well_is_no_contradiction() -> None:
    """Of images and texts each row depends on all rows of the other."""
    assert found(0.1, 0.1) is None
    assert found(0.1, 0.0) is None


def test_one_result() -> None:
    assert found(0.0, 0.0) is None
    assert found(0.0, 1e-8) is None


def test_other_rows_are_not_compared() -> None:
    assert found(0.0, 0.1, {"none": NONE, "right": {**RIGHT, "ids": np.array([[1, 9], [3, 0]])}}) is None
    assert found(0.0, 0.1, {"none": NONE, "right": {**RIGHT, "more": NONE["ids"]}}) is None
