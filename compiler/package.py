"""A converted package on disk: its folder, its modules."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from hf2khc.diagnostics import ConversionError, fail

TASK_FILE = "task.json"


def package_folder(directory: Path) -> Path:
    """The one folder of a converted package that has an `__init__.py`.

    Raises:
        ConversionError: `package`, when there is none or more than one.
    """
    hint = "give a folder that `hf2khc MODEL -o DIR` wrote"
    if not directory.is_dir():
        raise fail("package", "there is no such folder", location=str(directory), hint=hint)
    found = sorted(path.parent for path in directory.glob("*/__init__.py"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise fail("package", f"expected one importable folder, found {names}", location=str(directory), hint=hint)
    return found[0]


def import_package(directory: Path) -> ModuleType:
    """Import the package's folder under its own name, without touching `sys.path`; its classes register with Keras.

    Raises:
        ConversionError: `package`, when there is no such folder or its import fails.
    """
    folder = package_folder(directory)
    spec = importlib.util.spec_from_file_location(
        folder.name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise fail("package", "cannot be imported", location=str(folder))
    module = importlib.util.module_from_spec(spec)
    sys.modules[folder.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # generated code may fail in any way
        raise broken_package("the import fails", error, folder) from error
    return module


def load_preset(directory: Path, **options: Any) -> Any:
    """The model of an imported package with its weights, as a user loads it: the task where it has one, else the
    backbone.

    Args:
        directory: the package.
        **options: further arguments of `from_preset`.
    """
    from keras.saving import get_registered_object
    from keras_hub.models import Backbone

    preset = directory / "preset"
    if not (preset / TASK_FILE).is_file():
        return Backbone.from_preset(str(preset), **options)
    name = json.loads((preset / TASK_FILE).read_text(encoding="utf-8"))["registered_name"]
    return get_registered_object(name).from_preset(str(preset), **options)


def broken_package(what: str, error: Exception, place: Path) -> ConversionError:
    """The error for generated code that raised one; Keras writes several lines, with terminal colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return fail("package", f"{what}: {type(error).__name__}", location=str(place), excerpt=text)
