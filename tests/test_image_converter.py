"""The printed image converters: transformers' pixels, and what they cannot say is refused by its setting."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import torch
from float64_reference import noisy_model
from image_packages import image_package, written
from image_processors import EXPRESSIBLE, OTHERS, folder_of, images
from keras_hub.models import ImageClassifier
from test_write_task import plan_of
from text_vocabularies import byte_level_bpe
from transformers import (
    AutoImageProcessor,
    BatchFeature,
    CLIPImageProcessorPil,
    CLIPProcessor,
    LlavaProcessor,
    ViTConfig,
    ViTForImageClassification,
)

import hf2khc
from hf2khc.capture.image_processor import apart, as_data, read_image_processor
from hf2khc.capture.tokenizer import as_data as text_as_data
from hf2khc.driver.images import TOLERANCE, image_arguments, with_images
from hf2khc.write.plan import Images, Text


def theirs(folder: Path) -> Any:
    return AutoImageProcessor.from_pretrained(str(folder), local_files_only=True, backend="pil")


def pixels_of(processor: Any, image: np.ndarray) -> np.ndarray:
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return np.moveaxis(np.asarray(processor(images=[picture], return_tensors="np")["pixel_values"])[0], 0, -1)


def arguments_of(folder: Path, settings: dict[str, Any]) -> tuple[Any, str]:
    processor, reason = read_image_processor(folder_of(folder, settings))  # type: ignore[arg-type]
    assert processor is not None, reason
    return image_arguments(processor)


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return image_package(tmp_path_factory.mktemp("images"), "image_pixels", {})


@pytest.mark.parametrize("name", EXPRESSIBLE)
def test_pixels_are_those_of_transformers(tmp_path: Path, module: Any, name: str) -> None:
    settings, expected = EXPRESSIBLE[name]
    arguments, reason = arguments_of(tmp_path, settings)
    assert arguments is not None, reason
    assert {key: arguments.get(key) for key in expected if expected[key]} == {k: v for k, v in expected.items() if v}
    assert not any(arguments.get(key) for key in expected if not expected[key])
    ours, processor = module.ViTImageConverter(**arguments), theirs(tmp_path)
    channels = 1 if name == "gray" else 3
    for image in images(channels):
        np.testing.assert_allclose(np.asarray(ours(image)), pixels_of(processor, image), rtol=0, atol=TOLERANCE)
    copy = module.ViTImageConverter.from_config(ours.get_config())
    np.testing.assert_array_equal(np.asarray(copy(images(channels)[0])), np.asarray(ours(images(channels)[0])))


@pytest.mark.parametrize("name", OTHERS)
def test_what_cannot_be_said_is_named(tmp_path: Path, name: str) -> None:
    settings, named = OTHERS[name]
    arguments, reason = arguments_of(tmp_path, settings)
    assert arguments is None and named in reason


class Brighter:
    """A processor that makes one pixel brighter than its settings say."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def to_dict(self) -> dict[str, Any]:
        return self.processor.to_dict()

    def __call__(self, **inputs: Any) -> BatchFeature:
        made = self.processor(**inputs)
        made["pixel_values"][0, 0, 3, 3] += 2 * TOLERANCE
        return made


def test_one_pixel_is_enough_to_refuse(tmp_path: Path) -> None:
    folder_of(tmp_path, EXPRESSIBLE["exact size"][0])
    processor = theirs(tmp_path)
    assert image_arguments(as_data(processor))[0] is not None
    arguments, reason = image_arguments(as_data(Brighter(processor)))
    assert arguments is None and "pixels differ by up to 2e-05" in reason and "resample=2" in reason


def test_a_processor_of_text_and_images_holds_one_of_images(tmp_path: Path) -> None:
    processor = CLIPImageProcessorPil(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 40})
    CLIPProcessor(image_processor=processor, tokenizer=byte_level_bpe()).save_pretrained(tmp_path)
    assert not (tmp_path / "preprocessor_config.json").exists()
    source = SimpleNamespace(live=None, directory=tmp_path, trust_remote_code=False)
    found, _ = read_image_processor(source)  # type: ignore[arg-type]
    assert found is not None
    arguments, reason = image_arguments(found)
    assert arguments is not None and arguments["resize_to"] == 36, reason
    assert apart(source) == ""  # type: ignore[arg-type]
    # What puts the places of images into a text is not two processors side by side.
    tokenizer = byte_level_bpe()
    tokenizer.add_tokens(["<image>"])
    LlavaProcessor(processor, tokenizer, patch_size=8, vision_feature_select_strategy="full").save_pretrained(tmp_path)
    assert "takes no text with an image" in apart(source)  # type: ignore[arg-type]


def test_reasons_without_a_processor(tmp_path: Path) -> None:
    def reason(**source: Any) -> str:
        found, text = read_image_processor(SimpleNamespace(trust_remote_code=False, **source))  # type: ignore[arg-type]
        assert found is None
        return text

    assert reason(live=object(), directory=None) == ""
    assert "a config alone" in reason(live=None, directory=None)
    assert "holds no preprocessor_config.json" in reason(live=None, directory=tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "NoSuchProcessor"}')
    assert "transformers cannot run it" in reason(live=None, directory=tmp_path)


def test_gray_and_clear_images_become_rgb(tmp_path: Path, module: Any) -> None:
    arguments, _ = arguments_of(tmp_path, EXPRESSIBLE["shorter edge and crop"][0])
    ours, processor = module.ViTImageConverter(**arguments), theirs(tmp_path)
    for channels in (1, 4):
        for image in images(channels):
            np.testing.assert_allclose(np.asarray(ours(image)), pixels_of(processor, image), rtol=0, atol=TOLERANCE)
    with pytest.raises(ValueError, match="3 channels"):
        module.ViTImageConverter(**{**arguments, "convert_rgb": False})(images(1)[0])


def test_prompts_and_images_together(tmp_path: Path) -> None:
    tokenizer, _ = text_as_data(byte_level_bpe())
    assert tokenizer is not None
    plan, special = plan_of(package="prompts_and_images"), tokenizer.special_tokens
    plan = replace(
        plan,
        inputs={**plan.inputs, "pixel_values": ("images", "float32")},
        text=Text(tokenizer.file, {}),
        images=Images({}, "Preprocessor", {"sequence_length": 9}),
    )
    module = written(tmp_path, plan)
    arguments, _ = arguments_of(tmp_path, EXPRESSIBLE["exact size"][0])
    converter = module.LlamaImageConverter(**arguments)
    tokens = module.LlamaTokenizer(tokenizer=tokenizer.file, pad_token=special["pad_token"])
    ours = module.LlamaPreprocessor(tokens, converter, sequence_length=9)
    x, y = ours({"prompts": ["a photo", "größe"], "images": images()[:2]}, [0, 1])
    assert list(x) == ["token_ids", "padding_mask", "images"] and y == [0, 1]
    packed = tokens.pack(["a photo", "größe"], sequence_length=9)
    np.testing.assert_array_equal(np.asarray(x["token_ids"]), np.asarray(packed["token_ids"]))
    np.testing.assert_array_equal(np.asarray(x["images"]), np.asarray(converter(images()[:2])))
    config = ours.get_config()
    assert config["sequence_length"] == 9 and {"tokenizer", "image_converter"} <= config.keys()


def test_images_come_in_batches_in_lists_and_as_floats(tmp_path: Path, module: Any) -> None:
    arguments, _ = arguments_of(tmp_path, EXPRESSIBLE["exact size"][0])
    ours = module.ViTImageConverter(**arguments)
    single = [np.asarray(ours(image)) for image in images()]
    np.testing.assert_array_equal(np.asarray(ours(images())), np.stack(single))
    batch = np.stack([images()[0]] * 3)
    for same in (batch, batch.astype("float32"), keras.ops.convert_to_tensor(batch), list(batch)):
        np.testing.assert_array_equal(np.asarray(ours(same)), np.stack([single[0]] * 3))


@pytest.mark.parametrize("backend", ["jax", "tensorflow", "torch"])
def test_in_a_pipeline_and_on_every_backend(tmp_path: Path, backend: str) -> None:
    arguments, reason = arguments_of(tmp_path / "source", EXPRESSIBLE["shorter edge and crop"][0])
    assert arguments is not None, reason
    name = f"image_pipeline_{backend}"
    image_package(tmp_path, name, arguments)
    processor = theirs(tmp_path / "source")
    np.savez(tmp_path / "pixels.npz", *[pixels_of(processor, image) for image in images()])
    script = Path(__file__).parent / "image_in_pipelines.py"
    paths = os.pathsep.join([str(tmp_path), str(script.parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), name, repr(arguments)], env=env, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.split()[-1] == ("same" if backend == "tensorflow" else "alone")


def test_printed_tests_pass(tmp_path: Path) -> None:
    image_package(tmp_path, "image_tests", {})
    env = {**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": str(tmp_path)}
    test = tmp_path / "image_tests" / "image_tests_image_converter_test.py"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(test)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


def test_a_classifier_takes_raw_images(tmp_path: Path) -> None:
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 24, "width": 24}, "resample": 3}
    config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20, image_size=24,
                       patch_size=8, num_labels=5)  # fmt: skip
    model = noisy_model(config, ViTForImageClassification)
    model.save_pretrained(tmp_path / "raw_images")
    folder_of(tmp_path / "raw_images", settings)
    conversion = hf2khc.convert(str(tmp_path / "raw_images"), tmp_path / "keras", check=False)
    assert not conversion.report.notes
    task = hf2khc.load(tmp_path / "keras")
    assert isinstance(task, ImageClassifier) and task.num_classes == 5
    pictures = np.stack([images()[1]] * 2)
    pictures[1] = pictures[1, ::-1]
    given = theirs(tmp_path / "raw_images")(images=list(pictures), return_tensors="pt")
    with torch.no_grad():
        expected = model(**given).logits.numpy()
    np.testing.assert_allclose(task.predict(pictures, verbose=0), expected, atol=1e-4)
    task.fit(pictures, np.array([0, 4]), verbose=0)
    other = ImageClassifier.from_preset(str(tmp_path / "keras" / "preset"), num_classes=3)
    assert other.predict(pictures, verbose=0).shape == (2, 3)
    # Images that the model does not take are nothing to convert to.
    wrong = folder_of(tmp_path / "wrong", {**settings, "size": {"height": 32, "width": 24}})
    plan, reason = with_images(replace(conversion.compiled.plan, images=None), wrong)  # type: ignore[arg-type]
    assert plan.images is None and "makes images of (32, 24, 3), and the model takes (24, 24, 3)" in reason
