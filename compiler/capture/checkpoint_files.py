"""The safetensors files of a directory: what they hold, read from their headers alone."""

import json
from dataclasses import dataclass
from pathlib import Path

from hf2khc.diagnostics import ConversionError, fail

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
ITEM_SIZE = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip


@dataclass(frozen=True)
class FileTensor:
    """One tensor of a checkpoint.

    Args:
        file: the safetensors file that holds it.
        dtype: its safetensors type name, such as `F32`.
        shape: its shape.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]


def read_checkpoint(directory: Path) -> dict[str, FileTensor]:
    """All tensors of the checkpoint in `directory`, by their names in the files, in name order.

    Raises:
        ConversionError: `pickle-weights`, `weights-not-found`, `shard-missing`, `shard-truncated`, `index-broken`.
    """
    index = directory / INDEX
    if (directory / SINGLE).is_file():
        return dict(sorted(_read_file(directory / SINGLE).items()))
    if not index.is_file():
        raise _no_weights(directory)
    try:
        where = json.loads(index.read_text())["weight_map"]
    except (ValueError, KeyError) as error:
        raise fail("index-broken", f"{INDEX} is not a weight index", location=str(index)) from error
    return dict(sorted(_read_shards(directory, where).items()))


def _read_shards(directory: Path, where: dict[str, str]) -> dict[str, FileTensor]:
    shards = sorted(set(where.values()))
    missing = [shard for shard in shards if not (directory / shard).is_file()]
    if missing:
        raise fail("shard-missing", f"{len(missing)} of {len(shards)} weight files are missing",
                   location=str(directory / INDEX), excerpt="\n".join(missing[:8]),
                   hint="copy or download the missing files into the directory")
    tensors = {name: entry for shard in shards for name, entry in _read_file(directory / shard).items()}
    lost = sorted(where.keys() - tensors.keys())
    if lost:
        raise fail("shard-broken", f"{len(lost)} tensors of the index are in no weight file",
                   location=str(directory / INDEX), excerpt="\n".join(lost[:8]), hint="download the files again")
    return tensors


def _read_file(path: Path) -> dict[str, FileTensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise _truncated(path, 8 + length if size >= 8 else 8, size)
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise fail("shard-broken", f"{path.name} is not a safetensors file", location=str(path)) from error
    header.pop("__metadata__", None)
    end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if end > size:
        raise _truncated(path, end, size)
    return {name: FileTensor(path, entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}


def _truncated(path: Path, expected: int, size: int) -> ConversionError:
    return fail("shard-truncated", f"{path.name} is cut off: {size} bytes of at least {expected}", location=str(path),
                hint="download or copy the file again")


def _no_weights(directory: Path) -> ConversionError:
    pickles = sorted(path.name for pattern in PICKLES for path in directory.glob(pattern))
    if pickles:
        return pickle_weights(str(directory), pickles)
    return fail("weights-not-found", "the directory holds no safetensors weights", location=str(directory),
                hint=f"it needs {SINGLE}, or {INDEX} and its shards;\nor convert the architecture with --random-init")


def pickle_weights(location: str, files: list[str]) -> ConversionError:
    """The refusal of weights in a format that can run code when it is read."""
    return fail("pickle-weights", "the weights are pickles, which can run code when they are read; only safetensors "
                "are", location=location, excerpt="\n".join(files[:4]),
                hint="if you trust them, load the model with transformers (from_pretrained) and write it with\n"
                     "save_pretrained, which writes safetensors; then convert that directory")
