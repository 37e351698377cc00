"""How the package makes inputs of images: what the settings of the image processor may mean, and what they do mean."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hf2khc.capture.image_processor import CONVERTS_RGB, ImageProcessor, apart, read_image_processor
from hf2khc.capture.source import Source
from hf2khc.driver.head import CAUSAL_LM, SEQ_2_SEQ_LM
from hf2khc.driver.text import ONE_TEXT
from hf2khc.ir.expr import Expr
from hf2khc.passes.keras.vocabulary import INPUT_NAMES
from hf2khc.write.image_pixels import FILTERS, pixels_function
from hf2khc.write.image_preprocessor import IMAGE_CLASSIFIER_PREPROCESSOR, TEXT_AND_IMAGES
from hf2khc.write.plan import Images, Plan

# The largest difference of a pixel, after normalization.
TOLERANCE = 1e-5
PIXELS = "pixel_values"
# Channels last, as `permute` of an input says it.
_CHANNELS_LAST = (0, 2, 3, 1)
# Settings that are read below, and such that are no matter of pixels.
_READ = frozenset({
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "crop_pct", "do_rescale", "rescale_factor",
    "do_normalize", "image_mean", "image_std", CONVERTS_RGB, "do_flip_channel_order",
})  # fmt: skip
_SILENT = frozenset({
    "image_processor_type", "processor_class", "do_reduce_labels", "default_to_square", "return_tensors", "data_format",
    "input_data_format", "device", "disable_grouping", "format", "do_convert_annotations",
})  # fmt: skip


@dataclass(frozen=True)
class Found:
    """The arguments of an image converter, and how far its pixels are off at most.

    Args:
        arguments: of the constructor.
        error: infinite where sizes differ.
    """

    arguments: Mapping[str, Any]
    error: float


def with_images(plan: Plan, source: Source) -> tuple[Plan, str]:
    """The plan with what makes its inputs of images, or why it has none; that is empty where it takes no images."""
    if plan.inputs.get(PIXELS, ("",))[0] != INPUT_NAMES[PIXELS]:
        return plan, ""
    shape, permute = _taken(plan)
    if len(shape) != 4 or permute != _CHANNELS_LAST:
        return plan, "it takes no images with channels last"
    processor, reason = read_image_processor(source)
    if processor is None:
        return plan, reason
    found, reason = image_arguments(processor)
    if found is None:
        return plan, reason
    made = (*(found["image_size"] or (None, None)), processor.probes[0].made[PIXELS].shape[0])
    if any(isinstance(b, int) and a not in (None, b) for a, b in zip(made, shape[1:], strict=True)):
        return plan, f"its image processor makes images of {made}, and the model takes {tuple(shape[1:])}"
    others = {name for node, (name, _) in plan.inputs.items() if node != PIXELS}
    if not others:
        return replace(plan, images=Images(found, IMAGE_CLASSIFIER_PREPROCESSOR)), ""
    plan = replace(plan, images=Images(found))
    generates = plan.head is not None and plan.head.task in (CAUSAL_LM, SEQ_2_SEQ_LM)
    if plan.text is None or not others <= ONE_TEXT or generates:
        return plan, f"it takes more than images: {', '.join(sorted(others))}"
    reason = apart(source)
    if reason:
        return plan, reason
    settings = {"sequence_length": plan.text.sequence_length}
    return replace(plan, images=Images(found, TEXT_AND_IMAGES, settings)), ""


def _taken(plan: Plan) -> tuple[list[Any], object]:
    """Shape and layout of the model's images, sizes by the config."""
    node = plan.program.main[PIXELS]
    shape = [
        dim.evaluate(plan.values) if isinstance(dim, Expr) and dim.names <= plan.values.keys() else dim
        for dim in node.tensor.shape
    ]
    return shape, node.attrs.get("permute")


def image_arguments(processor: ImageProcessor) -> tuple[Mapping[str, Any] | None, str]:
    """The arguments of a converter with the processor's pixels, or None and what is in the way."""
    if any(probe.pixels(PIXELS) is None for probe in (*processor.probes, *processor.plain)):
        shape = processor.probes[0].made.get(PIXELS, np.empty(0)).shape
        return None, f"its image processor makes no images but {PIXELS} of {shape}{_named(processor)}"
    tried = []
    for arguments in _candidates(processor):
        tried.append(Found(arguments, _error(arguments, processor)))
        if tried[-1].error <= TOLERANCE:
            break
    best = min(tried, key=lambda found: found.error)
    if best.error > TOLERANCE:
        far = "sizes differ" if best.error == np.inf else f"pixels differ by up to {best.error:.3g}"
        return None, f"its image processor does more than a converter can say: {far}{_named(processor)}"
    if processor.settings.get("do_pad") and best.arguments["image_size"] is None:
        return None, "its image processor pads images to the largest of a batch (do_pad)"
    return best.arguments, ""


def _named(processor: ImageProcessor) -> str:
    """The settings that are to blame: those that are not understood, else all that are."""
    settings = {name: value for name, value in processor.settings.items() if name not in _SILENT and value is not False}
    blamed = {name: value for name, value in settings.items() if name not in _READ} or settings
    return f" ({', '.join(f'{name}={value}' for name, value in blamed.items())})"


def _candidates(processor: ImageProcessor) -> Iterator[dict[str, Any]]:
    """What the settings may mean, the likeliest first."""
    settings = processor.settings
    resample = settings.get("resample")
    common: dict[str, Any] = {
        "interpolation": FILTERS[resample] if isinstance(resample, int) and resample < len(FILTERS) else "bilinear",
        "convert_rgb": bool(settings.get(CONVERTS_RGB)),
        "flip_channels": bool(settings.get("do_flip_channel_order")),
    }
    affines = [_stated(settings), _measured(processor, common["flip_channels"])]
    for sizes, (scale, offset) in itertools.product(_sizes(processor), affines):
        yield {"image_size": None, **sizes, **common, "scale": scale, "offset": offset}


def _sizes(processor: ImageProcessor) -> Iterator[dict[str, Any]]:
    """What `size` and `crop_size` may mean."""
    settings = processor.settings
    resize, crop = _box(settings.get("size")), _box(settings.get("crop_size"))
    if not settings.get("do_center_crop"):
        crop = None
    edge = _edges(settings).get("shortest_edge")
    if not settings.get("do_resize", True) or not settings.get("size"):
        yield {"image_size": crop, "crop": True} if crop else {}
    if resize is not None:
        yield {"image_size": crop, "resize_to": resize, "crop": True} if crop else {"image_size": resize}
    cut = {"image_size": crop, "crop": True} if crop else {}
    if edge is not None:
        yield {"resize_to": edge, "max_size": _edges(settings).get("longest_edge"), **cut}
        yield {"image_size": [edge, edge]}
        if settings.get("crop_pct"):
            yield {"image_size": [edge, edge], "resize_to": int(edge / settings["crop_pct"]), "crop": True}
    # Some classes compute from `size` what they resize to; it shows in what comes out.
    shorter = {min(size) for size in processor.resized}
    if len(shorter) == 1:
        yield {"resize_to": shorter.pop(), **cut}
    if len(set(processor.resized)) == 1:
        yield {"image_size": list(processor.resized[0])}
    yield cut


def _edges(settings: Mapping[str, Any]) -> dict[str, int]:
    size = settings.get("size")
    if isinstance(size, int):
        return {"shortest_edge": size}
    return {name: value for name, value in size.items() if value} if isinstance(size, Mapping) else {}


def _box(size: object) -> list[int] | None:
    """Height and width, where both are said."""
    if isinstance(size, Mapping) and size.get("height") and size.get("width"):
        return [size["height"], size["width"]]
    return None


def _stated(settings: Mapping[str, Any]) -> tuple[Any, Any]:
    """Scale and offset as the settings have them."""
    factor = settings.get("rescale_factor", 1.0) if settings.get("do_rescale") else 1.0
    if not settings.get("do_normalize") or not settings.get("image_std"):
        return factor, None
    mean, std = (np.atleast_1d(np.asarray(settings[name], "float64")) for name in ("image_mean", "image_std"))
    return (factor / std).tolist(), (-mean / std).tolist()


def _measured(processor: ImageProcessor, flips: bool) -> tuple[Any, Any]:
    """Scale and offset as they show in images of one color, for what the settings do not say."""
    values = []
    for probe in processor.plain:
        pixels = probe.pixels(PIXELS)
        assert pixels is not None
        values.append(pixels[pixels.shape[0] // 2, pixels.shape[1] // 2].astype("float64"))
    black, white = values[0], np.array(values[1:])
    if white.shape != (len(black), len(black)):
        return 1.0, None
    # Row: the channel that is white; column: the one that it comes out in.
    slopes = (white - black) / 255
    return np.diag(slopes[::-1] if flips else slopes).tolist(), black.tolist()


def _error(arguments: Mapping[str, Any], processor: ImageProcessor) -> float:
    """How far pixels are off at most."""
    convert, largest = pixels_function(), 0.0
    for probe in (*processor.probes, *processor.plain):
        expected = probe.pixels(PIXELS)
        assert expected is not None
        try:
            found = convert(probe.image, **arguments)
        except ValueError:
            return np.inf
        if found.shape != expected.shape:
            return np.inf
        largest = max(largest, float(np.abs(found - expected).max()))
    return largest
