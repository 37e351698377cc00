"""The files of a package that need no weights: its folder, signature.json, and the config of the preset."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf2khc.write.package import write_package
from hf2khc.write.plan import Plan

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
    """Writes `signature.json` and `preset/config.json` into `directory`."""
    preset = json.dumps(backbone_config(plan), indent=4)
    signed = json.dumps(signature, indent=2, ensure_ascii=False)
    _write(directory, {SIGNATURE_FILE: f"{signed}\n", "preset/config.json": preset})


def _write(directory: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


def backbone_config(plan: Plan) -> dict[str, Any]:
    """The serialised backbone, as Keras writes it but for what Keras adds; the transfer lets Keras write it again."""
    name = f"{plan.prefix}Backbone"
    return {
        "module": f"{plan.package}.{plan.package}_backbone",
        "class_name": name,
        "config": {field.name: field.value for field in plan.fields},
        "registered_name": f"{plan.package}>{name}",
    }
