"""The test of an image converter, and of a preprocessor, that comes with a package."""

from hf2khc.write.image_converter_class import image_converter_class, image_converter_module
from hf2khc.write.image_preprocessor import IMAGE_CLASSIFIER_PREPROCESSOR
from hf2khc.write.plan import Plan
from hf2khc.write.preprocessor_class import preprocessor_class, preprocessor_module


def write_image_test(plan: Plan) -> str:
    """The unformatted text of `<package>_image_converter_test.py`."""
    assert plan.images is not None
    name = image_converter_class(plan)
    own, test = [f"from {plan.package}.{image_converter_module(plan)} import {name}"], _TEST
    if plan.images.preprocessor == IMAGE_CLASSIFIER_PREPROCESSOR:
        own.append(f"from {plan.package}.{preprocessor_module(plan)} import {preprocessor_class(plan)}")
        test += _PREPROCESSOR.replace("PREPROCESSOR", preprocessor_class(plan))
    return _HEAD + "\n".join(own) + "\n" + test.replace("CONVERTER", name)


_HEAD = """
import unittest

import keras
import numpy as np

"""
_TEST = """

class CONVERTERTest(unittest.TestCase):
    def setUp(self):
        images = np.random.default_rng(0).integers(0, 256, (2, 9, 6, 3))
        self.images = images.astype("uint8")

    def convert(self, images, **kwargs):
        return keras.ops.convert_to_numpy(CONVERTER(**kwargs)(images))

    def test_scale_and_offset(self):
        pixels = self.convert(self.images, scale=0.5, offset=[1, 2, 3])
        np.testing.assert_allclose(pixels, self.images * 0.5 + [1, 2, 3])
        np.testing.assert_allclose(
            self.convert(self.images[0], flip_channels=True),
            self.images[0, ..., ::-1],
        )
        with self.assertRaises(ValueError):
            self.convert(self.images, scale=[1, 2])

    def test_sizes(self):
        for images in (self.images, list(self.images), self.images * 1.0):
            pixels = self.convert(images, image_size=(4, 8))
            self.assertEqual(pixels.shape, (2, 4, 8, 3))
        ratio = self.convert(self.images, resize_to=4)
        self.assertEqual(ratio.shape, (2, 6, 4, 3))
        limited = self.convert(self.images, resize_to=4, max_size=5)
        self.assertEqual(limited.shape, (2, 5, 3, 3))
        cropped = self.convert(
            self.images, resize_to=4, image_size=(4, 4), crop=True
        )
        np.testing.assert_array_equal(cropped, ratio[:, 1:5])

    def test_crop(self):
        size = {"image_size": (3, 8), "crop": True}
        pixels = self.convert(self.images, **size)
        np.testing.assert_array_equal(pixels[:, :, 1:7], self.images[:, 3:6])
        self.assertEqual(pixels[:, :, 0].any() or pixels[:, :, 7].any(), False)

    def test_gray(self):
        gray = self.convert(self.images[..., :1], convert_rgb=True)
        np.testing.assert_array_equal(
            gray, np.repeat(self.images[..., :1], 3, -1)
        )
        clear = np.zeros((2, 2, 4), "uint8")
        np.testing.assert_array_equal(
            self.convert(clear, convert_rgb=True), np.full((2, 2, 3), 255)
        )

    def test_config(self):
        converter = CONVERTER(
            image_size=(4, 4),
            resize_to=5,
            crop=True,
            interpolation="bicubic",
            scale=[0.1, 0.2, 0.3],
        )
        copy = CONVERTER.from_config(converter.get_config())
        self.assertEqual(copy.get_config(), converter.get_config())
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(copy(self.images)),
            keras.ops.convert_to_numpy(converter(self.images)),
        )
"""
_PREPROCESSOR = """
    def test_preprocessor(self):
        preprocessor = PREPROCESSOR(CONVERTER(image_size=(4, 4)))
        x, y = preprocessor(self.images, [0, 1])
        (pixels,) = keras.tree.flatten(x)
        self.assertEqual(tuple(pixels.shape), (2, 4, 4, 3))
        self.assertEqual(y, [0, 1])
        copy = PREPROCESSOR.from_config(preprocessor.get_config())
        self.assertEqual(copy.get_config(), preprocessor.get_config())
"""
