"""KerasHub's own tests of a Backbone, on packages that hf2khc wrote. How to run them stands in docs/contract.md.

They are skipped unless HF2KHC_TEST_CASE names a copy of KerasHub's `test_case.py`, which is not in its wheel, and
HF2KHC_PACKAGES the packages, separated by colons.
"""

import importlib.util
import os
from pathlib import Path

import pytest

TEST_CASE = os.environ.get("HF2KHC_TEST_CASE", "")
PACKAGES = [Path(name) for name in os.environ.get("HF2KHC_PACKAGES", "").split(":") if name]

pytestmark = pytest.mark.skipif(not TEST_CASE, reason="HF2KHC_TEST_CASE names no copy of KerasHub's test_case.py")


def kerashub_case():
    """An instance of KerasHub's TestCase, ready to be asked."""
    spec = importlib.util.spec_from_file_location("kerashub_test_case", TEST_CASE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class Case(module.TestCase):
        def runTest(self):
            """Nothing: the test calls what it needs."""

    case = Case()
    case.setUp()
    return case


@pytest.mark.parametrize("directory", PACKAGES, ids=lambda path: path.name)
def test_backbone(directory):
    import keras

    from hf2khc.check.contract_subject import outputs, subject_of

    subject = subject_of(directory)
    case = kerashub_case()
    # Their variable lengths are 2, 3 and 4; they take tensors, from which alone a layer's output can be told.
    inputs = {name: keras.ops.convert_to_tensor(array) for name, array in subject.inputs(length=5).items()}
    shapes = [array.shape for array in outputs(subject.model, inputs)]
    names = sorted(subject.model.output) if isinstance(subject.model.output, dict) else []
    expected = dict(zip(names, shapes, strict=True)) if names else shapes[0]
    if "images" in inputs:
        case.run_vision_backbone_test(
            cls=subject.cls, init_kwargs=dict(subject.arguments), input_data=inputs["images"],
            expected_output_shape=expected, run_data_format_check=False,
        )  # fmt: skip
    else:
        case.run_backbone_test(
            cls=subject.cls, init_kwargs=dict(subject.arguments), input_data=inputs, expected_output_shape=expected
        )


@pytest.mark.parametrize("directory", PACKAGES, ids=lambda path: path.name)
def test_saving(directory):
    from hf2khc.check.contract_subject import subject_of

    subject = subject_of(directory)
    kerashub_case().run_model_saving_test(
        cls=subject.cls, init_kwargs=dict(subject.arguments), input_data=subject.inputs(length=5)
    )
