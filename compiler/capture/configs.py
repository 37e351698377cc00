"""Configs: read from a directory or made from a model type, with the user's changes laid over."""

import copy
import difflib
import json
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from hf2khc.capture.model_classes import remote_code
from hf2khc.diagnostics import ConversionError, fail


def default_config(model_type: str, overrides: dict[str, Any]) -> PreTrainedConfig:
    """The default config of a model type with `overrides` (dotted field names) laid over it.

    Raises:
        ConversionError: `unknown-field`, `bad-config`.
    """
    return _construct(CONFIG_MAPPING[model_type], {}, overrides, model_type)


def read_config(directory: Path, overrides: dict[str, Any], *, trust_remote_code: bool) -> PreTrainedConfig:
    """The config in `directory/config.json` with `overrides` laid over it.

    Raises:
        ConversionError: `config-not-found`, `bad-config`, `unknown-model-type`, `remote-code`, `unknown-field`.
    """
    path = directory / "config.json"
    values = _read_json(path)
    if "AutoConfig" in (values.get("auto_map") or {}) and values.get("model_type") not in CONFIG_MAPPING:
        if not trust_remote_code:
            raise remote_code(str(path), values["auto_map"]["AutoConfig"].rsplit(".", 1)[-1])
        config_class = type(AutoConfig.from_pretrained(directory, trust_remote_code=True))
    else:
        config_class = _config_class(values, path)
    config = _construct(config_class, values, overrides, str(path))
    config.name_or_path = str(directory)
    return config


def check_config(config: PreTrainedConfig) -> None:
    """Ask transformers whether the fields of a config fit one another, as it does before it saves one.

    Raises:
        ConversionError: `bad-config`, they do not.
    """
    try:
        if hasattr(config, "validate"):
            config.validate()
    except StrictDataclassError as error:
        raise fail("bad-config", f"transformers takes no such {type(config).__name__}: {error}") from None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise fail(
            "config-not-found",
            "the directory has no config.json",
            location=str(path.parent),
            hint="give the directory that save_pretrained wrote",
        )
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise fail(
            "bad-config", f"config.json is not valid JSON: {error}", location=str(path), hint="copy it again"
        ) from error
    if not isinstance(values, dict):
        raise fail("bad-config", "config.json is not an object", location=str(path), hint="copy it again")
    names = values.get("architectures")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        hint = 'write a list of class names, such as ["GPT2Model"], or leave it out and choose a class with --task'
        raise fail("bad-config", "architectures is not a list of class names", location=str(path), hint=hint)
    return values


def _config_class(values: dict[str, Any], path: Path) -> type[PreTrainedConfig]:
    model_type = values.get("model_type")
    if model_type is None:
        raise fail(
            "unknown-model-type",
            "config.json names no model_type",
            location=str(path),
            hint='add "model_type", one of the types transformers knows',
        )
    if model_type not in CONFIG_MAPPING:
        raise fail(
            "unknown-model-type",
            f"this transformers does not know the model type {model_type!r}",
            location=str(path),
            hint="update transformers; if the repository brings its own code, add --trust-remote-code",
        )
    return CONFIG_MAPPING[model_type]


def _construct(
    config_class: type[PreTrainedConfig], values: dict[str, Any], overrides: dict[str, Any], location: str
) -> PreTrainedConfig:
    config = _checked(config_class, values, location)
    if not overrides:
        return config
    values = copy.deepcopy(values)
    for field, value in overrides.items():
        _override(values, config, field, value)
    return _checked(config_class, values, location)


def _checked(config_class: type[PreTrainedConfig], values: dict[str, Any], location: str) -> PreTrainedConfig:
    try:
        return config_class.from_dict(values)
    except (StrictDataclassError, ValueError, TypeError, KeyError) as error:
        raise _bad_config(error, location) from error


def _bad_config(error: Exception, location: str) -> ConversionError:
    lines = str(error).strip().splitlines() or [repr(error)]
    return fail(
        "bad-config",
        "transformers does not accept the config",
        location=location,
        excerpt="\n".join(lines[:6]),
        hint="correct config.json or --set",
    )


def _override(values: dict[str, Any], config: PreTrainedConfig, field: str, value: Any) -> None:
    """Sets a dotted field in `values`, the plain form of `config`, and drops what was derived from its old value."""
    *parents, leaf = field.split(".")
    node: Any = config
    for parent in parents:
        node = _member(node, parent, field)
        values = values.setdefault(_real_name(config, parent), copy.deepcopy(node) if isinstance(node, dict) else {})
        if not isinstance(values, dict):
            raise fail("unknown-field", f"{parent!r} has no fields of its own", location=f"--set {field}")
        if not values and isinstance(node, PreTrainedConfig):
            # A sub-config whose kind is chosen by its model type keeps that type.
            values["model_type"] = node.model_type
        config = node
    if not isinstance(node, dict):
        # A plain dictionary (rope parameters) takes new keys: which ones count depends on the others.
        _member(node, leaf, field)
    if leaf in ("num_hidden_layers", _real_name(node, "num_hidden_layers")):
        _cut_lists(values, node, value)
    values[_real_name(node, leaf)] = value


def _cut_lists(values: dict[str, Any], config: PreTrainedConfig, depth: Any) -> None:
    # Lists with one entry per layer follow the number of layers; a longer one is derived anew by the config class.
    for key, entry in list(values.items()):
        if isinstance(entry, list) and len(entry) == getattr(config, "num_hidden_layers", None):
            if isinstance(depth, int) and depth <= len(entry):
                values[key] = entry[:depth]
            else:
                del values[key]


def _real_name(config: Any, name: str) -> str:
    return getattr(config, "attribute_map", {}).get(name, name) if isinstance(config, PreTrainedConfig) else name


def _member(node: Any, name: str, field: str) -> Any:
    if isinstance(node, dict) and name in node:
        return node[name]
    if isinstance(node, PreTrainedConfig) and name in _fields(node):
        return getattr(node, name)
    known = sorted(node) if isinstance(node, dict) else _fields(node) if isinstance(node, PreTrainedConfig) else []
    near = difflib.get_close_matches(name, [str(field) for field in known], n=3)
    nearest = f"nearest: {', '.join(near)}\n" if near else ""
    raise fail(
        "unknown-field",
        f"the config has no field {name!r}",
        location=f"--set {field}",
        hint=f"{nearest}fields: " + ", ".join(str(name) for name in known),
    )


def _fields(config: PreTrainedConfig) -> list[str]:
    own = (set(config.to_dict()) | set(config.sub_configs) | {"num_labels"}) - {"transformers_version"}
    return sorted(own | set(config.attribute_map))
