"""A package with a given image converter, written from a program made by hand: nothing is captured or compiled."""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from hf2khc.write.package import write_package
from hf2khc.write.plan import Images, Plan


def image_package(folder: Path, name: str, arguments: Mapping[str, object]) -> ModuleType:
    """Writes and imports a package.

    Args:
        folder: where its folder goes.
        name: of the package.
        arguments: of its image converter.
    """
    from write_models.plans import constants, vit

    plan = replace(constants(vit()), package=name, images=Images(arguments, "ImageClassifierPreprocessor"))
    return written(folder, plan)


def written(folder: Path, plan: Plan) -> ModuleType:
    """Writes and imports the package of a plan."""
    name = plan.package
    (folder / name).mkdir(parents=True)
    for file, text in write_package(plan).items():
        (folder / name / file).write_text(text, encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
