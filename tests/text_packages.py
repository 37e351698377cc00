"""A package with a given tokenizer, written from a program made by hand: nothing is captured or compiled."""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from hf2khc.capture.tokenizer import as_data
from hf2khc.driver.text import _arguments
from hf2khc.write.package import write_package
from hf2khc.write.plan import Text


def text_package(folder: Path, name: str, found: Any, preprocessor: str = "", inputs: Sequence[str] = ()) -> ModuleType:
    """Writes and imports a package.

    Args:
        folder: where its folder goes.
        name: of the package.
        found: a tokenizer of transformers.
        preprocessor: the class of KerasHub's that it has.
        inputs: further inputs of the model, beside tokens and mask.
    """
    from test_write_task import plan_of

    tokenizer, reason = as_data(found)
    assert tokenizer is not None, reason
    arguments = _arguments(tokenizer, SimpleNamespace(config=None, directory=None, live=_Silent()))
    plan = plan_of(package=name)
    plan = replace(plan, text=Text(tokenizer.file, arguments, preprocessor))
    files = write_package(plan)
    (folder / name).mkdir(parents=True)
    for file, text in files.items():
        (folder / name / file).write_text(text, encoding="utf-8")
    (folder / f"{name}.json").write_text(tokenizer.file, encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
    module.arguments = arguments | {"tokenizer": str(folder / f"{name}.json")}  # type: ignore[attr-defined]
    return module


class _Silent:
    """A model whose generation config says nothing."""

    def __init__(self) -> None:
        from transformers import GenerationConfig

        self.generation_config = GenerationConfig()
