"""The safetensors files of a directory: what they hold, read from their headers alone."""

import json
from dataclasses import dataclass
from pathlib import Path

from hf2khc.diagnostics import ConversionError, fail

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


@dataclass(frozen=True)
class FileTensor:
    """One tensor of a checkpoint.

    Args:
        file: the safetensors file that holds it.
        dtype: its safetensors type name, such as `F32`.
        shape: its shape.
        start: where its bytes begin in the file.
        size: number of its bytes.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


def same_bytes(a: FileTensor, b: FileTensor, chunk: int = 1 << 24) -> bool:
    """Whether two tensors of a checkpoint hold the same values in the same type and shape."""
    if (a.dtype, a.shape, a.size) != (b.dtype, b.shape, b.size):
        return False
    with a.file.open("rb") as left, b.file.open("rb") as right:
        left.seek(a.start)
        right.seek(b.start)
        return all(
            left.read(min(chunk, a.size - done)) == right.read(min(chunk, a.size - done))
            for done in range(0, a.size, chunk)
        )


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
        where = dict(json.loads(index.read_text())["weight_map"])
        if not all(isinstance(shard, str) for shard in where.values()):
            raise TypeError("a weight map names files")
    except (ValueError, KeyError, TypeError) as error:
        raise fail(
            "index-broken", f"{INDEX} is not a weight index", location=str(index), hint="copy or download it again"
        ) from error
    return dict(sorted(_read_shards(directory, where).items()))


def _read_shards(directory: Path, where: dict[str, str]) -> dict[str, FileTensor]:
    shards = sorted(set(where.values()))
    missing = [shard for shard in shards if not (directory / shard).is_file()]
    if missing:
        raise fail(
            "shard-missing",
            f"{len(missing)} of {len(shards)} weight files are missing",
            location=str(directory / INDEX),
            excerpt="\n".join(missing[:8]),
            hint="copy or download the missing files into the directory",
        )
    tensors = {name: entry for shard in shards for name, entry in _read_file(directory / shard).items()}
    lost = sorted(where.keys() - tensors.keys())
    if lost:
        raise fail(
            "shard-broken",
            f"{len(lost)} tensors of the index are in no weight file",
            location=str(directory / INDEX),
            excerpt="\n".join(lost[:8]),
            hint="download the files again",
        )
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
            raise fail(
                "shard-broken", f"{path.name} is not a safetensors file", location=str(path), hint="download it again"
            ) from error
    header.pop("__metadata__", None)
    end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if end > size:
        raise _truncated(path, end, size)
    base = 8 + length
    return {
        name: FileTensor(path, entry["dtype"], tuple(entry["shape"]), base + begin, stop - begin)
        for name, entry in header.items()
        for begin, stop in [entry["data_offsets"]]
    }


def _truncated(path: Path, expected: int, size: int) -> ConversionError:
    return fail(
        "shard-truncated",
        f"{path.name} is cut off: {size} bytes of at least {expected}",
        location=str(path),
        hint="download or copy the file again",
    )


def _no_weights(directory: Path) -> ConversionError:
    pickles = sorted(path.name for pattern in PICKLES for path in directory.glob(pattern))
    if pickles:
        return pickle_weights(str(directory), pickles)
    return fail(
        "weights-not-found",
        "the directory holds no safetensors weights",
        location=str(directory),
        hint=f"it needs {SINGLE}, or {INDEX} and its shards;\nor convert the architecture with --random-init",
    )


def pickle_weights(location: str, files: list[str]) -> ConversionError:
    """The refusal of weights in a format that can run code when it is read."""
    return fail(
        "pickle-weights",
        "the weights are pickles, which can run code when they are read; only safetensors are",
        location=location,
        excerpt="\n".join(files[:4]),
        hint="if you trust them, load the model with transformers (from_pretrained) and write it with\n"
        "save_pretrained, which writes safetensors; then convert that directory",
    )
