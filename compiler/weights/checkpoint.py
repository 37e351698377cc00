"""A directory of safetensors files, read one tensor, or a part of one, at a time.

The format is read directly: eight bytes of length, a JSON header, the data. Nothing is mapped into memory, so the peak
of a transfer is what it asks for.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf2khc.diagnostics import ConversionError, Diagnostic, fail
from hf2khc.weights.transform_ops import as_dtype

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U64": "uint64",
    "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_MAX_HEADER = 100_000_000


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: its file, the offset of its first byte, Keras dtype name and shape."""

    file: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]


class Checkpoint:
    """The tensors of a local checkpoint.

    Args:
        directory: holds `model.safetensors`, or `model.safetensors.index.json` and its shards.

    Raises:
        ConversionError: `checkpoint`, naming every shard that is missing, truncated or malformed.
    """

    def __init__(self, directory: Path | str):
        self.directory = Path(directory)
        self._entries: dict[str, Entry] = {}
        problems: list[Diagnostic] = []
        for file, expected in _files(self.directory):
            try:
                entries = _read_header(file)
            except ConversionError as error:
                problems += error.diagnostics
                continue
            lacking = sorted(expected - entries.keys())
            if lacking:
                problems.append(_broken(file, f"lacks tensors that the index names: {', '.join(lacking[:5])}"))
            self._entries |= entries
        if problems:
            raise ConversionError(*problems)

    def names(self) -> tuple[str, ...]:
        """Names of all tensors, sorted."""
        return tuple(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self._entry(name).shape

    def dtype(self, name: str) -> str:
        """Keras dtype name of a tensor (`bfloat16`, `float32`, ...)."""
        return self._entry(name).dtype

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """A tensor, or the part of it between two indices of the first axis, in the dtype of the file.

        Raises:
            ConversionError: `checkpoint`, when the name is unknown or the file ends early.
        """
        entry = self._entry(name)
        shape, row = entry.shape, math.prod(entry.shape[1:])
        dtype = as_dtype(entry.dtype)
        offset = entry.offset
        if shape and (start, stop) != (0, None):
            stop = shape[0] if stop is None else min(stop, shape[0])
            shape = (stop - start, *shape[1:])
            offset += start * row * dtype.itemsize
        raw = np.empty(math.prod(shape) * dtype.itemsize, np.uint8)
        with entry.file.open("rb", buffering=0) as stream:
            stream.seek(offset)
            _fill(stream, raw, entry.file)
        return raw.view(dtype).reshape(shape)

    def _entry(self, name: str) -> Entry:
        if name not in self._entries:
            raise fail("checkpoint", f"no tensor named {name}", location=str(self.directory))
        return self._entries[name]


def _fill(stream: Any, raw: np.ndarray, file: Path) -> None:
    view, done = raw.data, 0
    while done < len(view):
        count = stream.readinto(view[done:])
        if not count:
            raise ConversionError(_broken(file, "ends early"))
        done += count


def _files(directory: Path) -> list[tuple[Path, set[str]]]:
    """The files of a checkpoint, each with the tensors its index expects there."""
    index = directory / INDEX
    if index.is_file():
        try:
            weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        except (ValueError, KeyError) as error:
            raise ConversionError(_broken(index, f"is not an index: {error!r}")) from error
        shards: dict[str, set[str]] = {}
        for name, shard in weight_map.items():
            shards.setdefault(shard, set()).add(name)
        return [(directory / shard, names) for shard, names in sorted(shards.items())]
    if (directory / SINGLE).is_file():
        return [(directory / SINGLE, set())]
    raise fail(
        "checkpoint",
        "no safetensors weights here",
        location=str(directory),
        hint=f"expected {SINGLE}, or {INDEX} and its shards; save_pretrained of transformers writes them",
    )


def _broken(file: Path, what: str) -> Diagnostic:
    return Diagnostic("checkpoint", f"{file.name} {what}", str(file), hint="download or save the checkpoint again")


def _read_header(file: Path) -> dict[str, Entry]:
    if not file.is_file():
        raise ConversionError(_broken(file, "is missing"))
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(_MAX_HEADER, size - 8):
            raise ConversionError(_broken(file, f"is truncated or not safetensors ({size} bytes)"))
        try:
            header = json.loads(stream.read(length))
        except ValueError as error:
            raise ConversionError(_broken(file, "has a header that is not JSON")) from error
    header.pop("__metadata__", None)
    entries = {name: _entry(file, 8 + length, name, item) for name, item in header.items()}
    end = max((8 + length + item["data_offsets"][1] for item in header.values()), default=0)
    if end > size:
        raise ConversionError(_broken(file, f"is truncated: {size} bytes of {end}"))
    return entries


def _entry(file: Path, base: int, name: str, item: dict[str, Any]) -> Entry:
    kind, (begin, end) = item["dtype"], item["data_offsets"]
    if kind not in _DTYPES:
        raise ConversionError(_broken(file, f"stores {name} as {kind}, which is not supported"))
    dtype, shape = _DTYPES[kind], tuple(item["shape"])
    if end - begin != math.prod(shape) * as_dtype(dtype).itemsize:
        what = f"gives {name} {end - begin} bytes, which does not fit {kind}{list(shape)}"
        raise ConversionError(_broken(file, what))
    return Entry(file, base + begin, dtype, shape)
