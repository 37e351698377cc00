"""Numbers that torch rounded to float32."""

import math

import numpy as np
import pytest
import torch

from hf2khc.capture.constants import constant


@pytest.mark.parametrize("number", [192**0.5, 192**-0.5, 0.1, 2.5, -1e9, 1e-5, 0.0, 7.0, math.inf])
def test_one_number_is_what_its_formula_gives(number):
    found = constant(torch.tensor(number))
    assert found.dtype == np.float64
    assert found.item() == pytest.approx(number, rel=1e-15)


@pytest.mark.parametrize("number", [math.pi, 1.2345678, -(2.0**-126), 3.4028234663852886e38])
def test_a_number_that_no_formula_gives_is_the_nearest_of_float32(number):
    assert constant(torch.tensor(number)).item() == float(np.float32(number))


def test_numbers_of_other_types_are_as_they_are():
    assert constant(torch.tensor(192**0.5, dtype=torch.float64)).item() == 192**0.5
    assert constant(torch.tensor(3)).dtype == np.int64
    assert np.array_equal(constant(torch.tensor([0.1, 0.7])), np.array([0.1, 0.7], dtype=np.float32))
