"""Variants of a config come out right, since nothing is a template: the compiled program against transformers itself."""

import pytest
from float64_reference import error_against, lowered, noisy_model
from tiny_models import MODELS

# Both sides compute in float64; they differ by the order of summation.
TOLERANCE = 1e-11


def check(config, model_class) -> None:
    captured, program = lowered(config, model_class)
    assert error_against(noisy_model(config, model_class), captured, program) < TOLERANCE


@pytest.mark.parametrize("name", MODELS)
def test_architecture(name):
    check(*MODELS[name])
