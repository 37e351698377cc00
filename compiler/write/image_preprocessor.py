"""The file of a preprocessor for a model of images alone."""

from hf2khc.write.image_converter_class import image_converter_class, image_converter_module
from hf2khc.write.layer_class import register
from hf2khc.write.plan import Plan
from hf2khc.write.preprocessor_class import preprocessor_class
from hf2khc.write.source_text import docstring, entry, indent, paragraph

IMAGE_CLASSIFIER_PREPROCESSOR = "ImageClassifierPreprocessor"


def write_image_preprocessor(plan: Plan) -> str:
    """The unformatted text of the preprocessor's file."""
    converter = image_converter_class(plan)
    ((name, _),) = plan.inputs.values()
    imports = ["import keras", f"from keras_hub.models import {plan.preprocessor}"]
    imports += [f"from {plan.package}.{plan.package}_backbone import {plan.prefix}Backbone"]
    imports += [f"from {plan.package}.{image_converter_module(plan)} import {converter}"]
    lines = paragraph(f"{plan.prefix} preprocessor for image classification and for features of images.")
    lines += ["", *paragraph("Labels and sample weights are passed through."), "", "Args:"]
    lines += entry("image_converter", f"A `{converter}` instance, or `None` for images that are pixels already.")
    body = [*docstring(lines), "", f"backbone_cls = {plan.prefix}Backbone", f"image_converter_cls = {converter}"]
    body += ["", *(line.replace("NAME", name) for line in _CALL)]
    head = [register(plan.package), f"class {preprocessor_class(plan)}({plan.preprocessor}):"]
    return "\n".join([*imports, "", "", *head, *indent(body)]) + "\n"


# KerasHub's own turns the inputs into one tensor first, and so refuses images that differ in size.
_CALL = """
def call(self, x, y=None, sample_weight=None):
    if self.image_converter is not None:
        x = self.image_converter(x)
    x = {"NAME": x}
    return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
""".strip().splitlines()
