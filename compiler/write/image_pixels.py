"""What every printed image converter has in common: from an image to its pixels, and the layer around that.

Images are resized by Pillow, as transformers does it: its filters work on integers and round between rows and columns,
which no backend's `image.resize` repeats.
"""

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

# In the order of their numbers in Pillow, as it is printed below.
FILTERS = ("nearest", "lanczos3", "bilinear", "bicubic", "box", "hamming")
IMPORTS = """
import math

import keras
import numpy as np
from keras_hub.layers import ImageConverter

try:
    from PIL import Image
except ImportError:
    Image = None
""".strip().splitlines()
PIXELS = (
    f"# In the order of their numbers in Pillow.\nFILTERS = {FILTERS}\n".splitlines()
    + '''

def convert_pixels(
    image,
    image_size=None,
    resize_to=None,
    max_size=None,
    crop=False,
    interpolation="bilinear",
    convert_rgb=False,
    flip_channels=False,
    scale=None,
    offset=None,
):
    """The pixels that the model takes, of an array `(height, width, channels)`.

    See `ImageConverter` below for the arguments.
    """
    if convert_rgb:
        image = to_rgb(image)
    if resize_to is None and not crop:
        resize_to = image_size
    size = resized(image.shape[:2], resize_to, max_size)
    if size is not None:
        image = resize(image, size, interpolation)
    if crop:
        image = center_crop(image, image_size)
    pixels = image.astype("float32")
    if flip_channels:
        pixels = pixels[..., ::-1]
    for values in (scale, offset):
        if np.size(values) not in (1, pixels.shape[-1]):
            raise ValueError(
                f"The model takes images with {np.size(values)} channels. "
                f"Received: an image with {pixels.shape[-1]}."
            )
    if scale is not None:
        pixels = pixels * np.asarray(scale, "float32")
    if offset is not None:
        pixels = pixels + np.asarray(offset, "float32")
    return pixels


def to_rgb(image):
    """Gray becomes three channels, what is transparent becomes white."""
    if image.shape[-1] == 1:
        return np.repeat(image, 3, axis=-1)
    if image.shape[-1] != 4:
        return image
    image = Image.fromarray(to_bytes(image))
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(white, image).convert("RGB"))


def to_bytes(image):
    """Whole numbers from 0 to 255, which is all that Pillow resizes."""
    if image.dtype == np.uint8:
        return image
    return np.clip(np.round(image), 0, 255).astype("uint8")


def resized(size, resize_to, max_size):
    """The size that an image gets, `None` if it keeps its own."""
    if resize_to is None or not isinstance(resize_to, int):
        return resize_to
    height, width = size
    short, long = min(size), max(size)
    edge = resize_to
    if max_size is not None and long / short * edge > max_size:
        edge = max_size * short / long
    length = round(edge)
    if short == length:
        return size
    if width < height:
        return int(edge * height / width), length
    return length, int(edge * width / height)


def resize(image, size, interpolation):
    if Image is None:
        raise ImportError(
            "Resizing images requires Pillow. Please install it with "
            "`pip install pillow`."
        )
    height, width = size
    image, number = to_bytes(image), FILTERS.index(interpolation)
    channels = (Image.fromarray(x) for x in np.moveaxis(image, -1, 0).copy())
    channels = [x.resize((width, height), resample=number) for x in channels]
    return np.stack(channels, axis=-1)


def center_crop(image, size):
    """The middle of an image, with black around one that is too small."""
    for axis, (length, wanted) in enumerate(zip(image.shape, size)):
        start = (length - wanted) // 2
        if start >= 0:
            image = np.take(image, range(start, start + wanted), axis)
        else:
            before = math.ceil((wanted - length) / 2)
            padding = [(0, 0)] * image.ndim
            padding[axis] = (before, wanted - length - before)
            image = np.pad(image, padding)
    return image


def to_arrays(x):
    """An array, or a list of them where images differ in size."""
    if isinstance(x, (list, tuple)):
        return [to_arrays(image) for image in x]
    if keras.ops.is_tensor(x):
        x = keras.ops.convert_to_numpy(x)
    return np.asarray(x)
'''.rstrip().splitlines()
)
METHODS = '''
def call(self, inputs):
    if isinstance(inputs, dict):
        raise NotImplementedError(
            f"{self.__class__.__name__} has no bounding boxes."
        )
    if self._use_tf_workflow():
        return self._convert_tf(inputs)
    return keras.ops.convert_to_tensor(
        self._convert(to_arrays(inputs)), dtype=self.compute_dtype
    )

def _convert(self, images):
    """The pixels of an image, or of several."""
    if isinstance(images, list) or images.ndim == 4:
        return np.stack([self._convert(image) for image in images])
    return convert_pixels(
        images,
        image_size=self.image_size,
        resize_to=self.resize_to,
        max_size=self.max_size,
        crop=self.crop,
        interpolation=self.interpolation,
        convert_rgb=self.convert_rgb,
        flip_channels=self.flip_channels,
        scale=self.scale,
        offset=self.offset,
    )

def _convert_tf(self, inputs):
    import tensorflow as tf

    inputs = tf.convert_to_tensor(inputs)
    pixels = tf.numpy_function(self._convert, [inputs], tf.float32)
    size = (None, None) if self.image_size is None else self.image_size
    channels = 3 if self.convert_rgb else inputs.shape[-1]
    pixels.set_shape([*inputs.shape[:-3], *size, channels])
    return tf.cast(pixels, self.compute_dtype)
'''.strip().splitlines()


def pixels_function() -> Callable[..., Any]:
    """The function of the package that makes the pixels, from the text that is printed."""
    names: dict[str, Any] = {"math": math, "np": np, "Image": importlib.import_module("PIL.Image")}
    exec("\n".join(PIXELS), names)
    return names["convert_pixels"]
