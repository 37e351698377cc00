"""Fill a package's preset from a checkpoint, one tensor at a time, in a process of its own."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hf2khc.process import import_keras, peak_memory, run_job, serve
from hf2khc.weights.checkpoint import Checkpoint
from hf2khc.weights.laws import Variable, check_laws
from hf2khc.weights.rows import Row, WeightMap, from_json, to_json
from hf2khc.weights.stream import fill_dataset
from hf2khc.weights.transform import evaluate
from hf2khc.weights.transform_ops import as_dtype

_TORCH = {"KERAS_BACKEND": "torch"}


@dataclass(frozen=True)
class TransferStats:
    """What a transfer did.

    Args:
        variables: number of variables filled.
        parameters: number of their elements.
        written_bytes: size of the weights file or files.
        seconds: time from the imports' end to the last byte.
        base_bytes: peak memory once everything is imported.
        peak_bytes: peak memory at the end.
    """

    variables: int
    parameters: int
    written_bytes: int
    seconds: float
    base_bytes: int
    peak_bytes: int


def transfer(
    directory: Path,
    rows: WeightMap | Sequence[Row],
    checkpoint_dir: Path | None,
    constants: Mapping[str, np.ndarray] | None = None,
    dtype: str | None = "float32",
    *,
    weights: bool = True,
    shard_gigabytes: float | None = 10,
) -> TransferStats:
    """Write `preset/` of a package: `config.json`, `metadata.json` and the weights.

    Args:
        directory: the package; `preset/config.json` holds the serialized Backbone.
        rows: the weight map (all laws are checked), or bound rows alone (all but the accounting of the checkpoint).
        checkpoint_dir: local directory of safetensors; may be None where no row reads it.
        constants: arrays that rows name with `constant`.
        dtype: dtype policy the Backbone is built with; None keeps the config's.
        weights: False writes the two JSON files and checks the laws, and moves no byte.
        shard_gigabytes: weights beyond this size are sharded, as in `save_to_preset`; None never shards.

    Raises:
        ConversionError: a broken law, a broken checkpoint, a package that cannot be built.
    """
    weight_map = rows if isinstance(rows, WeightMap) else WeightMap(tuple(rows))
    with tempfile.TemporaryDirectory(prefix="hf2khc-constants-") as scratch:
        arrays = Path(scratch, "constants.npz")
        np.savez(arrays, **_numbered(constants or {}))
        job = {
            "directory": str(directory), "map": to_json(weight_map), "whole": isinstance(rows, WeightMap),
            "checkpoint": checkpoint_dir and str(checkpoint_dir), "constants": str(arrays),
            "constant_names": list(constants or {}), "dtype": dtype, "weights": weights, "shard": shard_gigabytes,
        }  # fmt: skip
        return TransferStats(**run_job("hf2khc.weights.transfer", job, _TORCH))


def read_layout(directory: Path, dtype: str | None = "float32") -> list[Variable]:
    """Path, shape and dtype of every variable of a package, found in a process of its own.

    Raises:
        ConversionError: `package`, when it cannot be built.
    """
    answer = run_job("hf2khc.weights.transfer", {"directory": str(directory), "dtype": dtype, "layout": True}, _TORCH)
    return [Variable(path, tuple(shape), kind) for path, shape, kind in answer["layout"]]


def _numbered(constants: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Arrays under names that are safe as file names inside an npz."""
    return {f"c{i}": array for i, array in enumerate(constants.values())}


def _work(job: dict[str, Any]) -> dict[str, Any]:
    """The child's part: keras is imported here, under the backend that the parent chose."""
    import_keras()
    from hf2khc.weights import layout

    directory, base, start = Path(job["directory"]), peak_memory(), time.perf_counter()
    model = layout.build(directory, job["dtype"])
    variables = layout.variables(model)
    if job.get("layout"):
        return {"layout": [(v.path, v.shape, v.dtype) for v in variables]}
    weight_map, constants = from_json(job["map"]), _constants(job)
    checkpoint = Checkpoint(job["checkpoint"]) if job["checkpoint"] else None
    check_laws(weight_map, variables, checkpoint if job["whole"] else None, constants)
    layout.save_config(model, directory / "preset")
    written = 0
    if job["weights"]:
        slots = layout.create_files(model, directory / "preset", job["shard"])
        _fill(slots, weight_map.rows, checkpoint, constants)
        written = sum(file.stat().st_size for file in {slot.file for slot in slots})
    count = sum(int(np.prod(v.shape)) for v in variables)
    seconds = time.perf_counter() - start
    return asdict(TransferStats(len(variables), count, written, seconds, base, peak_memory()))


def _constants(job: Mapping[str, Any]) -> dict[str, np.ndarray]:
    with np.load(job["constants"]) as arrays:
        return {name: arrays[f"c{i}"] for i, name in enumerate(job["constant_names"])}


def _fill(
    slots: Sequence[Any], rows: Sequence[Row], checkpoint: Checkpoint | None, constants: Mapping[str, np.ndarray]
) -> None:
    by_variable = {row.keras: row for row in rows}
    for file in sorted({slot.file for slot in slots}):
        with h5py.File(file, "r+") as weights:
            for slot in (s for s in slots if s.file == file):
                _fill_one(weights[slot.dataset], by_variable[slot.variable], checkpoint, constants)


def _fill_one(dataset: Any, row: Row, checkpoint: Checkpoint | None, constants: Mapping[str, np.ndarray]) -> None:
    if row.constant:
        dataset[...] = evaluate(row.transform, [constants[row.constant]]).astype(as_dtype(row.keras_dtype))
    else:
        assert checkpoint is not None, f"{row.keras} reads the checkpoint"
        fill_dataset(dataset, row, checkpoint)


if __name__ == "__main__":
    serve(_work)
