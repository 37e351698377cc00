"""What the user asked to convert: a config, a model class and, where there are any, files with weights."""

import copy
import difflib
import keyword
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel

from hf2khc.capture.checkpoint_files import PICKLES, pickle_weights, read_checkpoint
from hf2khc.capture.configs import default_config, read_config
from hf2khc.capture.examples import checked
from hf2khc.capture.hub import fetch, not_found, weight_files
from hf2khc.capture.images import with_image_size
from hf2khc.capture.input_types import Example
from hf2khc.capture.model_classes import resolve_class
from hf2khc.diagnostics import ConversionError, fail


@dataclass(frozen=True)
class Source:
    """A model to convert.

    Args:
        name: Python identifier in snake case that names the package.
        model: what the user typed.
        config: config of the whole model.
        model_class: class that is converted.
        directory: directory with `config.json` and safetensors; None where there are no weights yet.
        trust_remote_code: whether the user trusts code that comes with the model.
        live: the model itself, where the user gave one instead of a name.
        examples: inputs that the user gave.
    """

    name: str
    model: str
    config: PreTrainedConfig
    model_class: type[PreTrainedModel]
    directory: Path | None = None
    trust_remote_code: bool = False
    live: PreTrainedModel | None = None
    examples: tuple[Example, ...] = ()


def open_source(
    model: str | os.PathLike[str] | PreTrainedModel,
    *,
    random_init: bool = False,
    task: str | None = None,
    overrides: dict[str, Any] | None = None,
    trust_remote_code: bool = False,
    examples: Sequence[Mapping[str, Any]] = (),
) -> Source:
    """Finds the model that the user named and reads its config.

    Args:
        model: a Hub id, a local directory, a model type (with `random_init`) or a model, of a class that other
            processes can import.
        random_init: take the config alone; the weights are to be random.
        task: family of Auto classes that chooses the class; the config's first architecture by default.
        overrides: values by dotted config field; with `random_init` only.
        trust_remote_code: run code that comes with the model.
        examples: inputs to trace the model with, arrays or tensors by argument name.

    Raises:
        ConversionError: one diagnostic per kind of bad input.
    """
    if isinstance(model, os.PathLike):
        model = os.fspath(model)
    if overrides and not random_init:
        raise fail(
            "override-without-random-init",
            "config fields can be changed for random weights only",
            location="--set " + next(iter(overrides)),
            hint="add --random-init",
        )
    if isinstance(model, PreTrainedModel):
        return _from_model(model, task, checked(examples))
    directory = _directory(model, random_init=random_init, trust_remote_code=trust_remote_code)
    if directory is None:
        config = default_config(model, overrides or {})
    else:
        config = read_config(directory, overrides or {}, trust_remote_code=trust_remote_code)
    model_class = resolve_class(config, task, code=directory if trust_remote_code else None)
    if directory is not None and not random_init:
        read_checkpoint(directory)
    return Source(
        package_name(model),
        model,
        config if examples else with_image_size(config, model_class),
        model_class,
        None if random_init else directory,
        trust_remote_code,
        examples=checked(examples),
    )


def package_name(model: str) -> str:
    """The Python identifier, in snake case, for a Hub id, a path or a model type."""
    path = Path(model)
    snapshot = [part for part in path.parts if part.startswith("models--")]
    last = snapshot[-1].split("--")[-1] if snapshot else (path.resolve().name if path.exists() else path.name)
    words = re.sub(r"[^0-9a-z]+", "_", last.lower()).strip("_")
    if not words or words[0].isdigit():
        words = f"model_{words}".rstrip("_")
    return f"{words}_model" if keyword.iskeyword(words) else words


def _from_model(model: PreTrainedModel, task: str | None, examples: tuple[Example, ...]) -> Source:
    if task is not None:
        raise fail(
            "task-of-a-model",
            "a task chooses the class of a named model, and this is a model already",
            location=f"task={task!r}",
            hint="leave the task out",
        )
    _check_importable(type(model))
    name = model.config.name_or_path or model.config.model_type or type(model).__name__
    config = copy.deepcopy(model.config if examples else with_image_size(model.config, type(model)))
    return Source(package_name(name), name, config, type(model), live=model, examples=examples)


def _check_importable(model_class: type) -> None:
    """The class is used in other processes, too: they find it by its name."""
    found: object = sys.modules.get(model_class.__module__)
    for part in model_class.__qualname__.split("."):
        found = getattr(found, part, None)
    if model_class.__module__ == "__main__" or found is not model_class:
        raise fail(
            "class-not-importable",
            f"other processes cannot import {model_class.__name__}",
            location=f"{model_class.__module__}.{model_class.__qualname__}",
            hint="define the class at the top of a file of its own, and import it from there",
        )


def _directory(model: str, *, random_init: bool, trust_remote_code: bool) -> Path | None:
    """The directory to read; None for a bare model type."""
    path = Path(model).expanduser()
    # A package that was made of the type may well lie in a folder of that name.
    is_type = random_init and model in CONFIG_MAPPING and not (path / "config.json").exists()
    if path.is_dir() and not is_type:
        return path
    if path.exists() and not is_type:
        raise fail("model-not-found", "MODEL is a file", location=model, hint="give the directory that holds it")
    if is_type:
        return None
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) or model.startswith("."):
        raise not_found(model)
    return _from_hub(model, random_init=random_init, trust_remote_code=trust_remote_code)


def _from_hub(model: str, *, random_init: bool, trust_remote_code: bool) -> Path:
    try:
        directory = fetch(model, weights=not random_init, code=trust_remote_code)
    except ConversionError as error:
        raise (error if "/" in model else _bare_name(model, random_init)) from error
    if not random_init and not list(directory.glob("*.safetensors")):
        pickles = [name for name in weight_files(model) if any(Path(name).match(pattern) for pattern in PICKLES)]
        if pickles:
            raise pickle_weights(model, pickles)
    return directory


def _bare_name(model: str, random_init: bool) -> ConversionError:
    """The diagnostic for a name without a slash that the Hub did not give: a model type was probably meant."""
    if model in CONFIG_MAPPING:
        return fail(
            "model-not-found",
            f"{model!r} is a model type, and no Hub repository of that name was found",
            location=model,
            hint="to convert the type's default config with random weights, add --random-init",
        )
    if random_init:
        near = difflib.get_close_matches(model, list(CONFIG_MAPPING), n=5, cutoff=0.5)
        return fail(
            "unknown-model-type",
            f"this transformers does not know the model type {model!r}",
            location=model,
            hint="nearest: " + ", ".join(near) if near else "update transformers",
        )
    return not_found(model)
