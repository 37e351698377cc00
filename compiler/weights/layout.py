"""The Keras model without memory: its variables, and where each of them lies in the weights file.

Imported only in processes that run keras on the torch backend, whose `meta` device holds shapes and no data.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import keras_hub
import numpy as np
from keras.src.saving import saving_lib
from keras_hub.src.utils import preset_utils

from hf2khc.diagnostics import fail
from hf2khc.package import TASK_FILE, broken_package, import_package, load_preset
from hf2khc.weights.laws import Variable
from hf2khc.weights.transform_ops import as_dtype

SHARD_GIGABYTES = 10


@dataclass(frozen=True)
class Slot:
    """Where a variable lies: its path, the file, and the name of the dataset in it."""

    variable: str
    file: Path
    dataset: str


def build(directory: Path, dtype: str | None = None) -> Any:
    """The package's model as `preset/` describes it, on the meta device: the task where it has one, else the backbone.

    Args:
        directory: the converted package.
        dtype: dtype policy name; None keeps the config's.

    Raises:
        ConversionError: `package`, when the package or its config cannot be loaded.
    """
    import_package(directory)
    try:
        with keras.device("meta"), _repeat_without_data():
            # An optimizer has variables of its own, and reads them.
            options = {"compile": False} if (directory / "preset" / TASK_FILE).is_file() else {}
            return load_preset(directory, load_weights=False, dtype=dtype, **options)
    except Exception as error:  # the constructor is generated code
        raise broken_package("the model cannot be built", error, directory) from error


@contextmanager
def _repeat_without_data() -> Iterator[None]:
    """Let `keras.ops.repeat` work on the meta device.

    Keras's own calls itself there until it fails; the layer is then computed with data, against weights without.
    """
    from keras.src.backend.torch import numpy as torch_ops

    original = torch_ops.repeat

    def repeat(x: Any, repeats: Any, axis: int | None = None) -> Any:
        x = keras.ops.convert_to_tensor(x)
        if x.is_meta and isinstance(repeats, int):
            return x.repeat_interleave(repeats, dim=axis)
        return original(x, repeats, axis=axis)

    with mock.patch.object(torch_ops, "repeat", repeat):
        yield


def variables(model: Any) -> list[Variable]:
    """Path, shape and dtype of every weight of a model."""
    return [
        Variable(v.path, tuple(int(d) for d in v.shape), keras.backend.standardize_dtype(v.dtype))
        for v in model.weights
    ]


def layout(directory: Path, dtype: str | None = None) -> list[Variable]:
    """Path, shape and dtype of every weight of a package, in this process."""
    return variables(build(directory, dtype))


def save_config(model: Any, preset: Path) -> None:
    """Write `config.json` and `metadata.json`, and `task.json` of a task, as `save_to_preset` does."""
    saver, backbone = preset_utils.get_preset_saver(str(preset)), _backbone(model)
    if backbone is not model:
        saver._save_serialized_object(model, config_file=TASK_FILE)
    saver._save_serialized_object(backbone, config_file=preset_utils.CONFIG_FILE)
    saver._save_metadata(backbone)


def _backbone(model: Any) -> Any:
    """The backbone of a task; a backbone has none, but itself."""
    # A backbone may have a layer of that name.
    return model.backbone if isinstance(model, keras_hub.models.Task) else model


def create_files(model: Any, preset: Path, shard_gigabytes: float | None = SHARD_GIGABYTES) -> list[Slot]:
    """Create the weights file or files with all datasets, still empty, and say where each variable lies.

    Keras itself walks the model and names the groups; only the write of the values is left out.

    Raises:
        ConversionError: `weights-file`, when a layer saves what is no weight, or a weight is not saved.
    """
    backbone = _backbone(model)
    size = preset_utils.get_preset_saver(str(preset))._get_variables_size_in_bytes(backbone.variables)
    if shard_gigabytes is not None and size > shard_gigabytes * 1024**3:
        path = preset / preset_utils.SHARDED_MODEL_WEIGHTS_CONFIG_FILE
        store: _Recorder = _ShardedShells(backbone, path, shard_gigabytes)
    else:
        store = _Shells(backbone, preset / preset_utils.MODEL_WEIGHTS_FILE)
    slots = _recorded(store, backbone, set())
    if backbone is not model and model.has_task_weights():
        skipped = {id(layer) for layer in backbone._flatten_layers()}
        slots += _recorded(_Shells(model, preset / preset_utils.TASK_WEIGHTS_FILE), model, skipped)
    lacking = {v.path for v in model.weights} - {slot.variable for slot in slots}
    if lacking:
        raise fail("weights-file", f"weights that Keras does not save: {', '.join(sorted(lacking))}")
    return slots


def _recorded(store: "_Recorder", model: Any, skipped: set[int]) -> "list[Slot]":
    try:
        saving_lib._save_state(model, store, assets_store=None, inner_path="", visited_saveables=skipped)
    finally:
        store.close()
    return store.slots


class _Recorder(saving_lib.H5IOStore):
    """The end of a store that creates datasets without data and remembers them."""

    slots: list[Slot]
    owners: dict[int, Any]
    current: Any

    def track(self, model: Any) -> None:
        """Learn the variables of a model, and the tensors inside them: layers save either."""
        self.slots, self.current = [], None
        self.owners = {id(v): v for v in model.weights} | {id(v._value): v for v in model.weights}

    def variable(self, key: str, value: Any) -> Any:
        """The variable behind what a layer saves."""
        if id(value) not in self.owners:
            raise fail("weights-file", f"a layer saves {self._h5_entry_path}/{key}, which is no weight of the model")
        return self.owners[id(value)]

    def __setitem__(self, key: str, value: Any) -> None:
        """An empty dataset for the current variable, in the group that is open."""
        if not self._h5_entry_initialized:
            self._create_h5_group(self._h5_entry_path)
        name = keras.backend.standardize_dtype(self.current.dtype)
        dataset = self._h5_entry_group.create_dataset(key, shape=tuple(self.current.shape), dtype=as_dtype(name))
        if name == "bfloat16":
            dataset.attrs["dtype"] = name
        self.slots.append(Slot(self.current.path, Path(self.h5_file.filename), dataset.name))


class _Shells(_Recorder):
    """One file."""

    def __init__(self, model: Any, path: Path):
        self.track(model)
        super().__init__(path, mode="w")

    def __setitem__(self, key: str, value: Any) -> None:
        self.current = self.variable(key, value)
        super().__setitem__(key, value)


class _ShardedShells(saving_lib.ShardedH5IOStore, _Recorder):
    """Shards: Keras decides where a new file begins, from arrays that only pretend to have their size."""

    def __init__(self, backbone: Any, path: Path, shard_gigabytes: float):
        self.track(backbone)
        super().__init__(path, max_shard_size=shard_gigabytes, mode="w")

    def __setitem__(self, key: str, value: Any) -> None:
        self.current = self.variable(key, value)
        dtype = as_dtype(keras.backend.standardize_dtype(self.current.dtype))
        try:
            super().__setitem__(key, np.broadcast_to(np.zeros((), dtype), tuple(self.current.shape)))
        except ValueError as error:  # a single variable larger than a shard
            raise fail("weights-file", f"{self.current.path} does not fit a file: {error}") from error
