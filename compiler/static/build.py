"""The files of a package that no trace was made for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from hf2khc.capture.families import is_causal_lm, is_decoder
from hf2khc.capture.source import Source
from hf2khc.driver.layout import SIGNATURE_FILE
from hf2khc.package import import_package
from hf2khc.static.hand_written import hand_written, package_text
from hf2khc.static.place import place
from hf2khc.static.signature import static_signature
from hf2khc.static.template import Template, fill_template, package_files
from hf2khc.weights.checkpoint import Checkpoint

HAND_WRITTEN = (
    "Made without reading the model: KerasHub's own class for this model type, filled by KerasHub's own converter "
    "from config.json and the names of the tensors."
)
TEMPLATE = (
    "Made without reading the model: a generic transformer template, filled from config.json; the weights are placed "
    "by matching names and shapes. Nothing of the model's own code was looked at."
)


@dataclass(frozen=True)
class BuiltStatic:
    """What stands in the folder.

    Args:
        kind: how it came about, in two words.
        way: the same in a sentence.
        classes: the classes of the package: backbone, and the task where there is one.
        signature: the content of signature.json.
        placed: tensors of the checkpoint by the path of the Keras variable they went to.
        layers: class name of the layer that owns it, by the path of each variable.
        tensors: sizes of all tensors of the checkpoint, by name.
        read: the tensors that were read.
        parameters: number of elements of the Keras model's weights.
        notes: what the config says that found no place.
    """

    kind: str
    way: str
    classes: tuple[str, ...]
    signature: dict[str, Any]
    placed: dict[str, tuple[str, ...]]
    layers: dict[str, str]
    tensors: dict[str, tuple[int, ...]]
    read: frozenset[str]
    parameters: int
    notes: tuple[str, ...] = ()


def build_static(source: Source, directory: Path) -> BuiltStatic:
    """Writes the package into an empty folder.

    Args:
        source: the model, with a directory of weights.
        directory: the folder.

    Raises:
        ConversionError: `kerashub-converter` or `no-template`.
    """
    assert source.directory is not None, "the weights are on disk"
    checkpoint = Checkpoint(source.directory)
    tensors = {name: checkpoint.shape(name) for name in checkpoint.names()}
    causal = is_causal_lm(source.model_class)
    found = hand_written(source.directory, causal)
    notes: tuple[str, ...] = ()
    if found is not None:
        model, placement = found
        kind, way = "KerasHub's converter", HAND_WRITTEN
        placed, read = placement.placed, frozenset(placement.read)
        _write(directory, {f"{source.name}/__init__.py": package_text(model, source.name, way)})
    else:
        template = fill_template(source.name, source.config, is_decoder(source.config), causal)
        _write(directory, package_files(template, TEMPLATE))
        model = _instance(template, directory)
        single = place(model.weights, checkpoint)
        kind, way = f"{'decoder' if template.decoder else 'encoder'} template", TEMPLATE
        placed = {path: (name,) for path, name in single.items()}
        read, notes = frozenset(single.values()), template.notes
    model.save_to_preset(str(directory / "preset"))
    signature = static_signature(model)
    _write(directory, {SIGNATURE_FILE: json.dumps(signature, indent=2) + "\n"})
    classes = tuple(dict.fromkeys(type(part).__name__ for part in (getattr(model, "backbone", model), model)))
    return BuiltStatic(
        kind, way, classes, signature, placed, layer_classes(model), tensors, read, model.count_params(), notes
    )  # fmt: skip


def _instance(template: Template, directory: Path) -> Any:
    module = import_package(directory)
    keras.utils.set_random_seed(0)  # what no tensor fills is the same in every run
    backbone = getattr(module, f"{template.prefix}Backbone")(**template.values)
    return getattr(module, f"{template.prefix}CausalLM")(backbone) if template.causal else backbone


def layer_classes(model: Any) -> dict[str, str]:
    """The class name of the layer that owns each weight, by the weight's path."""
    owners: dict[str, str] = {}
    for layer in model._flatten_layers(include_self=True, recursive=True):
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables):
            owners[variable.path] = type(layer).__name__
    return {weight.path: owners[weight.path] for weight in model.weights}


def _write(directory: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
