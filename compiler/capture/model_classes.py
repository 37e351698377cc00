"""Which class of transformers a config stands for."""

import re
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.models.auto import modeling_auto
from transformers.models.auto.auto_factory import _get_model_class
from transformers.pipelines import SUPPORTED_TASKS

from hf2khc.diagnostics import fail


def resolve_class(config: PreTrainedConfig, task: str | None = None, *, code: Path | None = None) -> type:
    """The model class of a config: of the task if given, else its first architecture, else its base model.

    Args:
        config: config of the model.
        task: a family of Auto classes, such as `causal-lm` or `feature-extraction`.
        code: directory with the model's own code, which the user trusts; None where code must come from transformers.

    Raises:
        ConversionError: `unknown-task`, `unknown-architecture`, `remote-code`.
    """
    if task is not None:
        return _auto_model(config, _task_class(task), code)
    name = next(iter(getattr(config, "architectures", None) or ()), None)
    if name is None:
        return _auto_model(config, transformers.AutoModel, code)
    references = {ref.rsplit(".", 1)[-1]: ref for ref in (getattr(config, "auto_map", None) or {}).values() if ref}
    if name in references and code is not None:
        return get_class_from_dynamic_module(references[name], str(code))
    found = getattr(transformers, name, None)
    if isinstance(found, type) and issubclass(found, PreTrainedModel):
        return found
    raise _unknown_architecture(config, name)


def tasks() -> tuple[str, ...]:
    """The names that `--task` takes."""
    return tuple(sorted({_hyphenated(name) for name in _auto_classes()} | {"feature-extraction"}))


def _auto_classes() -> dict[str, type]:
    names = [name for name in dir(modeling_auto) if name.startswith("AutoModelFor")]
    return {name.removeprefix("AutoModelFor"): getattr(modeling_auto, name) for name in names}


def _hyphenated(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def _task_class(task: str) -> type:
    wanted = task.lower().replace("_", "-")
    if wanted in SUPPORTED_TASKS and SUPPORTED_TASKS[wanted]["pt"]:
        return SUPPORTED_TASKS[wanted]["pt"][0]
    for name, auto in _auto_classes().items():
        if wanted.replace("-", "") in (name.lower(), f"automodelfor{name}".lower()):
            return auto
    raise fail("unknown-task", f"{task!r} is no task", hint="tasks: " + ", ".join(tasks()))


def _auto_model(config: PreTrainedConfig, auto: Any, code: Path | None) -> type:
    reference = (getattr(config, "auto_map", None) or {}).get(auto.__name__)
    if reference and code is not None:
        return get_class_from_dynamic_module(reference, str(code))
    if type(config) in auto._model_mapping:
        return _get_model_class(config, auto._model_mapping)
    raise fail(
        "unknown-task",
        f"a {config.model_type} has no model class for {auto.__name__}",
        location="config.model_type",
        hint="give --task another value, or leave it out to convert the class the config names",
    )


def _unknown_architecture(config: PreTrainedConfig, name: str):
    if getattr(config, "auto_map", None):
        return remote_code(config.name_or_path, name)
    return fail(
        "unknown-architecture",
        f"transformers {transformers.__version__} has no class {name}",
        location="config.architectures",
        hint="update transformers, or choose a class with --task",
    )


def remote_code(location: str, name: str):
    """The refusal to run code that comes with a model."""
    return fail(
        "remote-code",
        f"{name} is defined by Python code in the model's own repository",
        location=location,
        hint="read that code; if you trust it, add --trust-remote-code",
    )
