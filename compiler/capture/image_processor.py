"""How transformers turns images into the inputs of a model: its image processor, as settings and as what it does."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoImageProcessor, AutoProcessor

from hf2khc.capture.build import quiet
from hf2khc.capture.source import Source

# Either of these says how images are processed; the second is of models that take several kinds of data.
FILES = ("preprocessor_config.json", "processor_config.json")
CONVERTS_RGB = "do_convert_rgb"
# Heights and widths of images that tell processors apart: small and large, wide and high, odd and even.
_SIZES = ((61, 97), (97, 60), (48, 200), (333, 250), (301, 120), (224, 224), (400, 901))


@dataclass(frozen=True)
class Probe:
    """An image and what the processor makes of it.

    Args:
        image: bytes, channels last.
        made: by the name of the model's input, without the batch.
    """

    image: np.ndarray
    made: Mapping[str, np.ndarray]

    def pixels(self, name: str) -> np.ndarray | None:
        """The pixels with channels last; None where there are none in the form of an image."""
        found = self.made.get(name)
        return np.moveaxis(found, 0, -1) if found is not None and found.ndim == 3 else None


@dataclass(frozen=True)
class ImageProcessor:
    """An image processor, as data.

    Args:
        settings: of `preprocessor_config.json`, with the defaults of what it leaves out.
        probes: what it makes of some images.
        plain: what it makes of images of one color, by that color: all black, and one channel after the other white.
        resized: for each probe, height and width after resizing alone; empty where it cannot be asked.
    """

    settings: Mapping[str, Any]
    probes: tuple[Probe, ...]
    plain: tuple[Probe, ...]
    resized: tuple[tuple[int, int], ...] = ()


def read_image_processor(source: Source) -> tuple[ImageProcessor | None, str]:
    """The image processor of a model, or None and why it cannot be read; a live model never has one."""
    if source.live is not None:
        return None, ""
    if source.directory is None:
        return None, "a config alone comes without an image processor"
    directory = Path(source.directory)
    if not any((directory / name).exists() for name in FILES):
        return None, f"its folder holds no {FILES[0]}"
    try:
        with quiet():
            # The backend that resizes with Pillow, whatever else is installed.
            found = AutoImageProcessor.from_pretrained(
                str(directory), local_files_only=True, trust_remote_code=source.trust_remote_code, backend="pil"
            )
            return as_data(found), ""
    except Exception as error:  # transformers and the code of a processor may fail in any way
        return None, f"transformers cannot run it ({type(error).__name__}: {str(error).strip().splitlines()[0:1]})"


def apart(source: Source) -> str:
    """Why text and images cannot be processed apart from each other, as the model's own processor does; empty if so."""
    image = _image(np.random.default_rng(0), _SIZES[0])
    try:
        with quiet():
            found = AutoProcessor.from_pretrained(
                str(source.directory), local_files_only=True, trust_remote_code=source.trust_remote_code, backend="pil"
            )
            added = " ".join(found.tokenizer.get_added_vocab())
            for text in ("a photo", f"{added} a"):
                made = _made(found, image, text=[text])
                if made["input_ids"].tolist() != found.tokenizer(text)["input_ids"]:
                    return "its processor makes other tokens of a text with an image"
                if any(not np.array_equal(made[k], x) for k, x in _made(found.image_processor, image).items()):
                    return "its processor makes other pixels of an image with a text"
    except Exception as error:  # a processor may want anything of its inputs
        return f"its processor takes no text with an image ({type(error).__name__})"
    return ""


def as_data(found: Any) -> ImageProcessor:
    """An image processor of transformers as data."""
    settings = {name: value for name, value in found.to_dict().items() if value is not None}
    random = np.random.default_rng(0)
    images = [_image(random, size) for size in _SIZES]
    if settings.get(CONVERTS_RGB):
        images += [_image(random, (70, 90), channels) for channels in (1, 4)]
    channels = len(settings["image_mean"]) if isinstance(settings.get("image_mean"), list | tuple) else 3
    if channels == 1:
        images = [image[..., :1] for image in images]
    colors = [np.zeros(channels), *255 * np.eye(channels)]
    plain = [np.broadcast_to(color, (*_SIZES[-1], channels)).astype("uint8") for color in colors]
    made = [Probe(image, _made(found, image)) for image in images]
    return ImageProcessor(settings, tuple(made), tuple(Probe(x, _made(found, x)) for x in plain), _resized(found, made))


def _image(random: np.random.Generator, size: tuple[int, int], channels: int = 3) -> np.ndarray:
    """Noise on slopes, so that every filter and every shift shows."""
    height, width = size
    slopes = np.add.outer(np.linspace(0, 150, height), np.linspace(0, 50, width))
    noise = random.integers(0, 56, (height, width, channels))
    return (slopes[..., None] + noise).astype("uint8")


def _made(found: Any, image: np.ndarray, **options: Any) -> dict[str, np.ndarray]:
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    outputs = found(images=[picture], return_tensors="np", **options)
    return {name: np.asarray(value)[0] for name, value in outputs.items() if np.ndim(value) > 0}


def _resized(found: Any, probes: list[Probe]) -> tuple[tuple[int, int], ...]:
    """Sizes before anything is cut out or put around."""
    alone = partial(_made, found, do_center_crop=False, do_pad=False)
    try:
        shapes = [next(iter(alone(probe.image).values())).shape for probe in probes]
    except Exception:  # a processor need not know these options
        return ()
    return tuple((shape[-2], shape[-1]) for shape in shapes if len(shape) == 3)
