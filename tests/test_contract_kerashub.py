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


TEXTS = ["airplane at airport", "the quick brown fox jumped"]
LENGTH = 8


def task_of(directory):
    """The package's task with its preprocessor."""
    from hf2khc.package import import_package, load_preset

    if not (directory / "preset" / "preprocessor.json").exists():
        pytest.skip("the package has no preprocessor: its model came without a tokenizer")
    import_package(directory)
    return load_preset(directory)


@pytest.mark.parametrize("directory", PACKAGES, ids=lambda path: path.name)
def test_task(directory):
    import keras_hub

    task = task_of(directory)
    task.preprocessor.sequence_length = LENGTH
    is_causal = isinstance(task, keras_hub.models.CausalLM)
    expected = (len(TEXTS), LENGTH, task.backbone.token_embedding.input_dim) if is_causal else None
    kerashub_case().run_task_test(
        cls=type(task), init_kwargs={"backbone": task.backbone, "preprocessor": task.preprocessor},
        train_data=(TEXTS,), expected_output_shape=expected,
    )  # fmt: skip


@pytest.mark.parametrize("directory", PACKAGES, ids=lambda path: path.name)
def test_preprocessor_and_tokenizer(directory):
    preprocessor, case = task_of(directory).preprocessor, kerashub_case()
    case.init_kwargs = {"tokenizer": preprocessor.tokenizer, "sequence_length": LENGTH}
    case.run_preprocessor_test(cls=type(preprocessor), init_kwargs=case.init_kwargs, input_data=TEXTS)
    arguments = preprocessor.tokenizer.get_config()
    (file,) = (directory / "preset" / "assets").rglob("tokenizer.json")
    case.run_preprocessing_layer_test(
        cls=type(preprocessor.tokenizer), init_kwargs={**arguments, "tokenizer": str(file)}, input_data=TEXTS
    )
