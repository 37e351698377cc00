"""From a plan to the files of the package."""

from collections.abc import Mapping

from hf2khc.diagnostics import fail
from hf2khc.write.analysis import Analysis
from hf2khc.write.backbone_class import write_backbone
from hf2khc.write.chat_template import write_chat_template
from hf2khc.write.construction import ClassHead
from hf2khc.write.image_converter_class import image_converter_class, image_converter_module, write_image_converter
from hf2khc.write.image_preprocessor import write_image_preprocessor
from hf2khc.write.image_test import write_image_test
from hf2khc.write.layer_class import write_layer
from hf2khc.write.plan import Plan
from hf2khc.write.preprocessor_class import preprocessor_class, preprocessor_module, write_preprocessor
from hf2khc.write.source_text import formatted
from hf2khc.write.split import backbone_plan
from hf2khc.write.task_class import task_class, task_module, write_task
from hf2khc.write.task_test import write_task_test
from hf2khc.write.test_class import write_test
from hf2khc.write.text_test import write_text_test
from hf2khc.write.tokenizer_class import chat_module, chats, tokenizer_class, tokenizer_module, write_tokenizer


def write_package(plan: Plan) -> dict[str, str]:
    """The text of every file of the package by its name in the folder, formatted.

    Raises:
        ConversionError: where the program cannot be written, with the node or the name that is in the way.
    """
    analysis = Analysis(plan)
    heads: dict[str, ClassHead] = {}
    files: dict[str, str] = {}
    for graph in analysis.graphs:
        if graph.name == plan.program.entry:
            continue
        head, text = write_layer(analysis, graph, heads)
        if f"{head.module}.py" in files:
            raise fail("package-files", f"two classes belong in {head.module}.py", hint="rename one of them")
        heads[graph.name] = head
        files[f"{head.module}.py"] = text
    base = backbone_plan(plan)
    own = {f"{plan.package}_backbone": f"{plan.prefix}Backbone"}
    files[f"{plan.package}_backbone.py"] = write_backbone(Analysis(base), heads)
    files[f"{plan.package}_backbone_test.py"] = write_test(base)
    if plan.head is not None:
        module = task_module(plan)
        own[module] = task_class(plan)
        files[f"{module}.py"] = write_task(plan, heads)
        files[f"{module}_test.py"] = write_task_test(plan)
    for of_data, names in (_text(plan), _images(plan), _preprocessor(plan)):
        files, own = files | of_data, own | names
    shaped = {name: formatted(text, plan.package) for name, text in files.items()}
    return {"__init__.py": _init(plan, own, heads), **dict(sorted(shaped.items()))}


def _text(plan: Plan) -> tuple[dict[str, str], dict[str, str]]:
    """The files that make inputs of text, and the classes in them by module."""
    if plan.text is None:
        return {}, {}
    module = tokenizer_module(plan)
    own = {module: tokenizer_class(plan)}
    files = {f"{module}.py": write_tokenizer(plan), f"{module}_test.py": write_text_test(plan)}
    if chats(plan):
        files[f"{chat_module(plan)}.py"] = write_chat_template()
    return files, own


def _images(plan: Plan) -> tuple[dict[str, str], dict[str, str]]:
    """The files that make inputs of images, and the classes in them by module."""
    if plan.images is None:
        return {}, {}
    module = image_converter_module(plan)
    own = {module: image_converter_class(plan)}
    files = {f"{module}.py": write_image_converter(plan), f"{module}_test.py": write_image_test(plan)}
    return files, own


def _preprocessor(plan: Plan) -> tuple[dict[str, str], dict[str, str]]:
    """The file of the preprocessor, of texts or of images, and the class in it by module."""
    if not plan.preprocessor:
        return {}, {}
    module = preprocessor_module(plan)
    write = write_preprocessor if plan.text and plan.text.preprocessor else write_image_preprocessor
    return {f"{module}.py": write(plan)}, {module: preprocessor_class(plan)}


def _init(plan: Plan, own: Mapping[str, str], heads: Mapping[str, ClassHead]) -> str:
    modules = {**own, **{h.module: h.name for h in heads.values()}}
    lines = [f"from {plan.package}.{module} import {name} as {name}" for module, name in sorted(modules.items())]
    return "\n".join(lines) + "\n"
