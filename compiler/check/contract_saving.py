"""Saving: configs, presets, model files and weight files give back the same model."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np

from hf2khc.check.contract_subject import Subject, difference, outputs
from hf2khc.check.contract_verdict import Broken, Skipped, require

# Bytes of weights that are loaded to see that they can be.
_LARGEST = 64 << 20


def config(subject: Subject) -> str:
    """`from_config(get_config())` is the same model: config, variables, and what a JSON file makes of it."""
    model = subject.model
    found = model.get_config()
    lost = [name for name in subject.parameters if name not in found]
    require((f"{name}: not in get_config" for name in lost), "get_config loses arguments")
    copy = subject.cls.from_config(json.loads(json.dumps(found)))
    again = copy.get_config()
    require((f"{k}: {found[k]!r} becomes {again[k]!r}" for k in found if _plain(found[k]) != _plain(again[k])),
            "the config changes on its way through from_config")  # fmt: skip
    attributes = [name for name in subject.parameters if not hasattr(model, name)]
    require((f"{name}: no attribute" for name in attributes), "an argument is no attribute")
    require(_other_variables(model, copy), "from_config gives other variables")
    serialized = keras.saving.serialize_keras_object(model)
    keras.saving.deserialize_keras_object(json.loads(json.dumps(serialized)))
    return f"{len(subject.parameters)} arguments, {len(model.weights)} variables"


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _other_variables(model: Any, copy: Any) -> list[str]:
    ours, theirs = ({w.path: tuple(w.shape) for w in m.weights} for m in (model, copy))
    paths = [path for path in {**ours, **theirs} if ours.get(path) != theirs.get(path)]
    return [f"{path}: {ours.get(path)} becomes {theirs.get(path)}" for path in paths]


def preset(subject: Subject) -> str:
    """A preset written by `save_to_preset` loads through the base class."""
    with tempfile.TemporaryDirectory() as folder:
        model = subject.model
        model.save_to_preset(folder)
        return _same(subject, model, keras_hub.models.Backbone.from_preset(folder))


def shipped_preset(subject: Subject) -> str:
    """The preset of the package loads through the base class, with the config it names."""
    folder = subject.directory / "preset"
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"]
    if not any(folder.glob("model*.weights.*")):
        raise Skipped("the package was written without weights")
    size = sum(path.stat().st_size for path in folder.glob("model*.weights.*"))
    if size > _LARGEST:
        raise Skipped(f"{size / 2**20:,.0f} MiB of weights; the proof of the conversion has loaded them")
    model = keras_hub.models.Backbone.from_preset(str(folder))
    config = model.get_config()
    require((f"{k}: {written[k]!r} becomes {config.get(k)!r}" for k in written
             if k in config and _plain(config[k]) != written[k] and k not in ("name", "dtype")),
            "the loaded config is another one")  # fmt: skip
    return f"{model.count_params():,} parameters"


def saved_model(subject: Subject) -> str:
    """A model saved as `.keras` loads as the same class with the same outputs."""
    with tempfile.TemporaryDirectory() as folder:
        model = subject.model
        path = Path(folder, "model.keras")
        model.save(path)
        return _same(subject, model, keras.models.load_model(path))


def saved_weights(subject: Subject) -> str:
    """Weights saved from one model give another one, of other weights, the same outputs."""
    with tempfile.TemporaryDirectory() as folder:
        model, other = subject.model, subject.build(seed=1)
        inputs = subject.inputs()
        if difference(outputs(model, inputs), outputs(other, inputs)) == 0:
            raise Broken("two models with other weights have the same outputs")
        path = Path(folder, "model.weights.h5")
        model.save_weights(path)
        other.load_weights(path)
        return _same(subject, model, other)


def _same(subject: Subject, model: Any, copy: Any) -> str:
    """The copy is of the same class, with the same weights bit by bit and the same outputs."""
    if type(copy) is not subject.cls:
        raise Broken(f"a {type(copy).__name__} is loaded in place of a {subject.cls.__name__}")
    require(_other_variables(model, copy), "the copy has other variables")
    pairs = zip(model.weights, copy.weights, strict=True)
    require((f"{a.path}: another value" for a, b in pairs if not _equal(a, b)), "weights are lost")
    inputs: Mapping[str, np.ndarray] = subject.inputs()
    error = difference(outputs(model, inputs), outputs(copy, inputs))
    if error > 0:
        raise Broken(f"the outputs of the copy are off by {error:.1e}")
    return f"{len(model.weights)} variables and all outputs identical"


def _equal(a: Any, b: Any) -> bool:
    return bool(np.array_equal(keras.ops.convert_to_numpy(a.value), keras.ops.convert_to_numpy(b.value)))
