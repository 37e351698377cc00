"""The file of a preprocessor for a model of images, or of images and texts."""

from collections.abc import Mapping

from hf2khc.write.image_converter_class import image_converter_class, image_converter_module
from hf2khc.write.layer_class import register
from hf2khc.write.plan import Plan
from hf2khc.write.preprocessor_class import preprocessor_class
from hf2khc.write.source_text import docstring, entry, indent, paragraph
from hf2khc.write.tokenizer_class import tokenizer_class, tokenizer_module

IMAGE_CLASSIFIER_PREPROCESSOR = "ImageClassifierPreprocessor"
TEXT_AND_IMAGES = "Preprocessor"


def write_image_preprocessor(plan: Plan) -> str:
    """The unformatted text of the preprocessor's file."""
    if plan.preprocessor == TEXT_AND_IMAGES:
        return _text_and_images(plan)
    converter = image_converter_class(plan)
    ((name, _),) = plan.inputs.values()
    lines = paragraph(f"{plan.prefix} preprocessor for image classification and for features of images.")
    lines += ["", *paragraph("Labels and sample weights are passed through."), "", "Args:"]
    lines += entry("image_converter", f"A `{converter}` instance, or `None` for images that are pixels already.")
    body = [*docstring(lines), "", f"backbone_cls = {plan.prefix}Backbone", f"image_converter_cls = {converter}"]
    body += ["", *(line.replace("NAME", name) for line in _CALL)]
    return _file(plan, {image_converter_module(plan): converter}, body)


def _text_and_images(plan: Plan) -> str:
    own = {image_converter_module(plan): image_converter_class(plan), tokenizer_module(plan): tokenizer_class(plan)}
    lines = paragraph(f"{plan.prefix} preprocessor for texts and images.")
    lines += ["", *paragraph(_TEXT_AND_IMAGES), "", "Args:"]
    lines += entry("tokenizer", f"A `{tokenizer_class(plan)}` instance.")
    lines += entry("image_converter", f"A `{image_converter_class(plan)}` instance.")
    lines += entry("sequence_length", "int. The length of the packed texts.")
    body = [*docstring(lines), "", f"backbone_cls = {plan.prefix}Backbone", f"tokenizer_cls = {tokenizer_class(plan)}"]
    body += [f"image_converter_cls = {image_converter_class(plan)}", "", *_INIT]
    names = {node: name for node, (name, _) in plan.inputs.items()}
    values = {n: "pixels" if node == "pixel_values" else f'packed["{n}"]' for node, n in names.items()}
    body += [*(f'        "{name}": {value},' for name, value in values.items()), *_END]
    return _file(plan, own, body)


def _file(plan: Plan, own: Mapping[str, str], body: list[str]) -> str:
    """The file around the body of the class, with its imports; `own` has those of the package by module."""
    own = {f"{plan.package}_backbone": f"{plan.prefix}Backbone", **own}
    imports = ["import keras", f"from keras_hub.models import {plan.preprocessor}"]
    imports += [f"from {plan.package}.{module} import {name}" for module, name in own.items()]
    head = [register(plan.package), f"class {preprocessor_class(plan)}({plan.preprocessor}):"]
    return "\n".join([*imports, "", "", *head, *indent(body)]) + "\n"


_TEXT_AND_IMAGES = (
    'It takes a dictionary of `"prompts"`, a string or several, and `"images"`, one or several; labels and sample '
    "weights are passed through."
)
_INIT = """
def __init__(self, tokenizer, image_converter, sequence_length=512, **kwargs):
    super().__init__(**kwargs)
    self.tokenizer = tokenizer
    self.image_converter = image_converter
    self.sequence_length = sequence_length

def build(self, input_shape):
    self.built = True

def call(self, x, y=None, sample_weight=None):
    packed = self.tokenizer.pack(
        x["prompts"], sequence_length=self.sequence_length
    )
    pixels = self.image_converter(x["images"])
    x = {
""".strip().splitlines()
_END = """
    }
    return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)

def get_config(self):
    config = super().get_config()
    config.update({"sequence_length": self.sequence_length})
    return config
""".strip("\n").splitlines()
# KerasHub's own turns the inputs into one tensor first, and so refuses images that differ in size.
_CALL = """
def call(self, x, y=None, sample_weight=None):
    if self.image_converter is not None:
        x = self.image_converter(x)
    x = {"NAME": x}
    return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
""".strip().splitlines()
