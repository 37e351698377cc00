"""The files of a package that need no weights: its folder, signature.json, and the config of the preset."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf2khc.package import TASK_FILE
from hf2khc.write.image_converter_class import image_converter_class, image_converter_module
from hf2khc.write.package import write_package
from hf2khc.write.plan import Plan
from hf2khc.write.preprocessor_class import preprocessor_class, preprocessor_module
from hf2khc.write.split import backbone_plan, task_fields
from hf2khc.write.task_class import task_class, task_module
from hf2khc.write.tokenizer_class import tokenizer_class, tokenizer_module

SIGNATURE_FILE = "signature.json"


def lay_out(plan: Plan, signature: Mapping[str, Any], directory: Path) -> dict[str, str]:
    """Writes the package's folder, `signature.json` and `preset/config.json` into `directory`.

    Returns:
        The text of the source files, by path in the package.

    Raises:
        ConversionError: where the program cannot be written.
    """
    sources = {f"{plan.package}/{name}": text for name, text in write_package(plan).items()}
    _write(directory, sources)
    write_preset(plan, signature, directory)
    return sources


def write_preset(plan: Plan, signature: Mapping[str, Any], directory: Path) -> None:
    """Writes `signature.json`, `preset/config.json` and, where there is a task, `preset/task.json` into `directory`."""
    signed = json.dumps(signature, indent=2, ensure_ascii=False)
    preset = {"preset/config.json": backbone_config(plan)}
    preset |= {f"preset/{TASK_FILE}": task_config(plan)} if plan.head is not None else {}
    files = {SIGNATURE_FILE: f"{signed}\n"} | {k: json.dumps(v, indent=4) for k, v in preset.items()}
    _write(directory, files | _data_files(plan))


def _data_files(plan: Plan) -> dict[str, str]:
    """What the preset says of tokenizer, image converter and preprocessor."""
    configs = {
        "preset/tokenizer.json": tokenizer_config(plan) if plan.text else None,
        "preset/image_converter.json": image_converter_config(plan) if plan.images else None,
        "preset/preprocessor.json": preprocessor_config(plan),
    }
    files = {name: json.dumps(config, indent=4, ensure_ascii=False) for name, config in configs.items() if config}
    return files | ({"preset/assets/tokenizer/tokenizer.json": plan.text.file} if plan.text else {})


def _write(directory: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def backbone_config(plan: Plan) -> dict[str, Any]:
    """The serialised backbone, as Keras writes it but for what Keras adds; the transfer lets Keras write it again."""
    fields = {field.name: field.value for field in backbone_plan(plan).fields}
    return _serialized(plan, f"{plan.package}_backbone", f"{plan.prefix}Backbone", fields)


def task_config(plan: Plan) -> dict[str, Any]:
    """The serialised task, with its preprocessor where text or images make its inputs."""
    fields = {field.name: field.value for field in task_fields(plan)}
    config = {"backbone": backbone_config(plan), "preprocessor": preprocessor_config(plan), **fields, **plan.generation}
    return _serialized(plan, task_module(plan), task_class(plan), config)


def preprocessor_config(plan: Plan) -> dict[str, Any] | None:
    """The serialised preprocessor, if there is one."""
    if not plan.preprocessor:
        return None
    config: dict[str, Any] = {"tokenizer": tokenizer_config(plan), **plan.text.settings} if plan.text else {}
    config |= {"image_converter": image_converter_config(plan), **plan.images.settings} if plan.images else {}
    return _serialized(plan, preprocessor_module(plan), preprocessor_class(plan), config)


def tokenizer_config(plan: Plan) -> dict[str, Any]:
    """The serialised tokenizer; its vocabulary is an asset."""
    assert plan.text is not None
    return _serialized(plan, tokenizer_module(plan), tokenizer_class(plan), plan.text.arguments)


def image_converter_config(plan: Plan) -> dict[str, Any]:
    """The serialised image converter."""
    assert plan.images is not None
    return _serialized(plan, image_converter_module(plan), image_converter_class(plan), plan.images.arguments)


def _serialized(plan: Plan, module: str, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "module": f"{plan.package}.{module}",
        "class_name": name,
        "config": dict(config),
        "registered_name": f"{plan.package}>{name}",
    }
