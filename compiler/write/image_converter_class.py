"""The file of an image converter: KerasHub's contract around the pixels of the model's own image processor."""

from hf2khc.write.image_pixels import IMPORTS, METHODS, PIXELS
from hf2khc.write.layer_class import register
from hf2khc.write.plan import Plan
from hf2khc.write.source_text import docstring, entry, indent, paragraph

# What the constructor takes: name, its default, and what it is; those that KerasHub's class keeps come first.
KEPT: dict[str, tuple[object, str]] = {
    "image_size": (None, "tuple of ints. Height and width of the result. `None` for one that depends on the image."),
    "scale": (None, "float, or list of floats for each channel. What pixels are multiplied by."),
    "offset": (None, "float, or list of floats for each channel. What is then added."),
}
OWN: dict[str, tuple[object, str]] = {
    "resize_to": (
        None,
        "int or tuple of ints. What an image is resized to first: the length of its shorter edge, its ratio kept, or "
        "height and width. `None` for `image_size`, and with `crop` for no resizing.",
    ),
    "max_size": (None, "int. The most that the longer edge may get, where the ratio is kept."),
    "crop": (False, "bool. Whether `image_size` is then cut out of the middle."),
    "interpolation": (
        "bilinear",
        'string. A filter of Pillow: `"nearest"`, `"lanczos3"`, `"bilinear"`, `"bicubic"`, `"box"` or `"hamming"`.',
    ),
    "convert_rgb": (False, "bool. Whether gray images, and such with an alpha channel, become RGB."),
    "flip_channels": (False, "bool. Whether the model takes BGR."),
}
# Arguments of KerasHub's class that this one has no use for.
_UNUSED = ("antialias", "crop_to_aspect_ratio", "pad_to_aspect_ratio", "bounding_box_format")


def image_converter_class(plan: Plan) -> str:
    """The name of the image converter's class."""
    return f"{plan.prefix}ImageConverter"


def image_converter_module(plan: Plan) -> str:
    """The name of the image converter's file, without `.py`."""
    return f"{plan.package}_image_converter"


def write_image_converter(plan: Plan) -> str:
    """The unformatted text of the image converter's file."""
    arguments = [f"{name}={default!r}" for name, (default, _) in {**KEPT, **OWN}.items()]
    init = [
        f"def __init__(self, {', '.join(arguments)}, **kwargs):",
        f"    super().__init__({', '.join(f'{name}={name}' for name in KEPT)}, **kwargs)",
        *(f"    self.{name} = {name}" for name in OWN),
    ]
    config = [
        "def get_config(self):",
        "    config = super().get_config()",
        f"    for name in {_UNUSED!r}:",
        "        del config[name]",
        "    config.update({",
        *indent([f'"{name}": self.{name},' for name in OWN], 2),
        "    })",
        "    return config",
    ]
    body = [*docstring(_docs(plan)), "", f"backbone_cls = {plan.prefix}Backbone"]
    for method in (init, METHODS, config):
        body += ["", *method]
    own = [f"from {plan.package}.{plan.package}_backbone import {plan.prefix}Backbone"]
    head = [*IMPORTS, "", *own, "", *PIXELS, "", ""]
    lines = [register(plan.package), f"class {image_converter_class(plan)}(ImageConverter):", *indent(body)]
    return "\n".join([*head, *lines]) + "\n"


def _docs(plan: Plan) -> list[str]:
    name = image_converter_class(plan)
    lines = paragraph(f"A {plan.prefix} image converter, with the pixels of the model's own image processor.")
    lines += ["", *paragraph(_WHAT), "", "Args:"]
    for argument, (default, doc) in {**KEPT, **OWN}.items():
        lines += entry(argument, f"{doc} Defaults to `{default!r}`.".replace("'", '"'))
    lines += ["", "Example:", "```python", f'image_converter = {name}.from_preset("./preset")']
    return [*lines, "image_converter(np.random.randint(0, 256, size=(2, 512, 384, 3)))", "```"]


_WHAT = (
    "It takes images of numbers from 0 to 255, channels last, of any size: one, a batch, or a list of images that "
    "differ in size. They are resized by Pillow, which rounds to whole numbers, as the model saw it in training; "
    "`image.resize` of the backends gives other pixels."
)
