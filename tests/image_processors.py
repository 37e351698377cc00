"""Image processors as folders hold them: a `preprocessor_config.json` each, read by transformers."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
BOX = {"height": 32, "width": 40}
# What a converter can say: the settings, and arguments that must come out.
EXPRESSIBLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "exact size": (
        {"image_processor_type": "ViTImageProcessor", "size": BOX, "resample": 2},
        {"image_size": [32, 40], "crop": False, "interpolation": "bilinear", "offset": [-1.0, -1.0, -1.0]},
    ),
    "shorter edge and crop": (
        {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 36}, "crop_size": BOX, "resample": 3},
        {"image_size": [32, 40], "resize_to": 36, "crop": True, "interpolation": "bicubic", "convert_rgb": True},
    ),
    "size and crop": (
        {"image_processor_type": "DeiTImageProcessor", "size": {"height": 48, "width": 44}, "crop_size": BOX},
        {"image_size": [32, 40], "resize_to": [48, 44], "crop": True},
    ),
    "share of the crop": (
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 30}, "crop_pct": 0.9},
        {"image_size": [30, 30], "resize_to": 33, "crop": True},
    ),
    "no crop above a size": (
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}, "crop_pct": 0.9},
        {"image_size": [384, 384], "resize_to": None, "crop": False},
    ),
    "an edge of the class": (
        {"image_processor_type": "LevitImageProcessor", "size": {"shortest_edge": 35}, "crop_size": BOX},
        {"image_size": [32, 40], "resize_to": 40, "crop": True},
    ),
    "two edges": (
        {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 40, "longest_edge": 60},
         "do_center_crop": False, "resample": 1},
        {"image_size": None, "resize_to": 40, "max_size": 60, "interpolation": "lanczos3"},
    ),
    "no resize": (
        {"image_processor_type": "CLIPImageProcessor", "do_resize": False, "crop_size": {"height": 300, "width": 90}},
        {"image_size": [300, 90], "resize_to": None, "crop": True},
    ),
    "nothing but scale": (
        {"image_processor_type": "ViTImageProcessor", "do_resize": False, "do_normalize": False},
        {"image_size": None, "offset": None},
    ),
    "no scale": (
        {"image_processor_type": "ViTImageProcessor", "size": BOX, "do_rescale": False, "do_normalize": False,
         "resample": 0},
        {"scale": 1.0, "interpolation": "nearest"},
    ),
    "other channels": (
        {"image_processor_type": "MobileViTImageProcessor", "size": {"shortest_edge": 40}, "crop_size": BOX},
        {"flip_channels": True, "resize_to": 40},
    ),
    "scaled by code": (
        {"image_processor_type": "EfficientNetImageProcessor", "size": BOX, "rescale_offset": True,
         "rescale_factor": 1 / 127.5},
        {"image_size": [32, 40]},
    ),
    "gray": (
        {"image_processor_type": "ViTImageProcessor", "size": BOX, "image_mean": [0.4], "image_std": [0.3]},
        {"image_size": [32, 40], "convert_rgb": False},
    ),
}  # fmt: skip
# What it cannot: the settings, and what the reason must name.
OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "batches": ({"image_processor_type": "DetrImageProcessor", "size": {"shortest_edge": 40, "longest_edge": 60}},
                "do_pad"),
    "multiples": ({"image_processor_type": "GLPNImageProcessor", "size_divisor": 32}, "sizes differ (size_divisor=32)"),
    "thumbnails": ({"image_processor_type": "DonutImageProcessor", "size": BOX}, "do_thumbnail=True"),
    "patches": ({"image_processor_type": "Siglip2ImageProcessor", "patch_size": 8}, "patch_size=8"),
    "crop first": ({"image_processor_type": "PerceiverImageProcessor", "size": BOX, "crop_size": {"height": 50,
                    "width": 50}}, "crop_size="),
}  # fmt: skip


def folder_of(path: Path, settings: dict[str, Any]) -> SimpleNamespace:
    """A source whose folder holds nothing but an image processor."""
    path.mkdir(parents=True, exist_ok=True)
    given = {**IMAGENET, **settings} if settings["image_processor_type"].startswith(("CLIP", "DeiT")) else settings
    (path / "preprocessor_config.json").write_text(json.dumps(given), encoding="utf-8")
    return SimpleNamespace(live=None, directory=path, trust_remote_code=False)


def images(channels: int = 3) -> list[np.ndarray]:
    """Images that no processor was tried on."""
    random = np.random.default_rng(7)
    sizes = ((40, 32), (37, 111), (120, 53), (32, 40), (255, 256), (19, 23))
    return [random.integers(0, 256, (*size, channels)).astype("uint8") for size in sizes]
