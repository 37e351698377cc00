"""The weights of a package: made where there are none, named as in the file, mapped, and moved into the preset."""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hf2khc.capture.build import build_meta
from hf2khc.capture.checkpoint_files import read_checkpoint
from hf2khc.capture.checkpoint_names import CheckpointNames, checkpoint_names, tensor_owners
from hf2khc.capture.random_weights import check_memory, materialise
from hf2khc.capture.source import Source
from hf2khc.diagnostics import fail
from hf2khc.weights.checkpoint import Checkpoint
from hf2khc.weights.elements import computes, parts_listed, unread_parts
from hf2khc.weights.rows import Alias, NotConsumed, Origin, Row, WeightMap, bind_rows, write_weight_map
from hf2khc.weights.transfer import TransferStats, transfer
from hf2khc.weights.transform import output_shape
from hf2khc.write.plan import Plan
from hf2khc.write.weight_paths import WeightPath, weight_paths

WEIGHT_MAP_FILE = "weight_map.json"
LONGEST_LINE, MOST_LINES = 300, 10


@dataclass(frozen=True)
class Filled:
    """A package with its preset.

    Args:
        source: the model, with the directory its weights were read from.
        weight_map: what came from where.
        stats: of the transfer.
        parameters: counts that were checked against each other, see `parameter_counts`.
        core_share: how much of the parameters belongs to layers of Keras.
    """

    source: Source
    weight_map: WeightMap
    stats: TransferStats
    parameters: Mapping[str, int]
    core_share: float


class PlannedCheckpoint:
    """The checkpoint that a model without weights would be saved as: names, shapes and dtypes, and no values."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str], directory: Path):
        self.directory = directory
        self._shapes, self._dtypes = shapes, dtypes

    def __contains__(self, name: object) -> bool:
        return name in self._shapes

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self._shapes[name]

    def dtype(self, name: str) -> str:
        """Keras dtype name of a tensor."""
        return self._dtypes[name]


def check_weights(source: Source, directory: Path) -> None:
    """Refuses what `with_weights` or `fill` would refuse, before anything is compiled for it.

    Args:
        source: the model.
        directory: where random weights are going to be written.

    Raises:
        ConversionError: `weights-do-not-fit`, `tied-weights-differ`, `not-enough-memory`, `not-enough-disk`,
            `cannot-build`.
    """
    if source.directory is not None:
        checkpoint_names(build_meta(source.config, source.model_class), read_checkpoint(source.directory))
    elif source.live is None:
        check_memory(source, directory)


def with_weights(source: Source, scratch: Path, seed: int) -> Source:
    """The source with weights on disk: its own, or random ones (or those of a live model) written to `scratch`.

    Raises:
        ConversionError: `not-enough-memory`, `not-enough-disk`, `cannot-build`, `cannot-save`.
    """
    return source if source.directory is not None else materialise(source, scratch, seed)


def fill(source: Source, plan: Plan, directory: Path, *, weights: bool) -> Filled:
    """Writes `weight_map.json` and `preset/`.

    Args:
        source: the model; without a directory only the map is written, for the file the model would be saved as.
        plan: of the package.
        directory: the package, with `preset/config.json`.
        weights: whether the weights themselves are written.

    Raises:
        ConversionError: weights that do not fit the config, a broken law of the map, a broken checkpoint.
    """
    paths = weight_paths(plan)
    constants = {path.constant: np.asarray(plan.program.constants[path.constant]) for path in paths if path.constant}
    rows = [_row(path, constants) for path in paths]
    planned = _shaped(bind_rows(rows, *_planned(source)))
    unread = unread_parts(planned)
    weight_map = WeightMap(planned) if source.directory is None else bound_map(source, source.directory, rows, unread)
    counts = parameter_counts(source, weight_map.rows, unread)
    write_weight_map(directory / WEIGHT_MAP_FILE, weight_map)
    stats = transfer(directory, weight_map, source.directory, constants, weights=weights)
    share = core_share(weight_map.rows, {path.keras for path in paths if path.core})
    return Filled(source, weight_map, stats, counts, share)


def core_share(rows: Sequence[Row], core: Set[str]) -> float:
    """The share of the parameters that belongs to layers of Keras: what LoRA and quantization can reach.

    Tables of whole numbers and what the compiler computed are no parameters.

    Args:
        rows: one per variable.
        core: paths of the variables of such layers.
    """
    parameters = [row for row in rows if not row.constant and "float" in row.keras_dtype]
    sizes = {row.keras: math.prod(row.keras_shape) for row in parameters}
    return sum(size for name, size in sizes.items() if name in core) / (sum(sizes.values()) or 1)


def parameter_counts(source: Source, rows: Sequence[Row], unread: Sequence[Row] = ()) -> dict[str, int]:
    """Elements of the model's parameters and persistent buffers, tied ones once, and of the package's variables.

    Args:
        source: the model.
        rows: one per variable.
        unread: parts of the model's tensors that go into no variable.

    Returns:
        `transformers` and `keras`; `not consumed`, where no variable needs some of the former; `merged`, where a
        variable is computed from several of them, such as the sum of two biases, by how many there are fewer;
        `constants`, where some of the latter are computed by the compiler.

    Raises:
        ConversionError: `parameter-count`, when the two do not agree exactly.
    """
    model = build_meta(source.config, source.model_class)
    owners, state = tensor_owners(model), model.state_dict()
    consumed = {owners[path] for row in rows for path in row.sources}
    sizes = {path: state[path].numel() for path in set(owners.values())}
    left = sum(size for path, size in sizes.items() if path not in consumed)
    left += sum(math.prod(part.keras_shape) for part in unread)
    constants = sum(math.prod(row.keras_shape) for row in rows if row.constant)
    taken = sum(math.prod(row.keras_shape) for row in rows if not row.constant)
    total, merged = sum(sizes.values()), sum(_merged(rows, owners, sizes))
    if total - left - merged != taken:
        message = f"the package has {taken:,} parameters, and {total - left - merged:,} of the model's go into it"
        lines = "\n".join(itertools.islice(_unequal(rows, owners, sizes), MOST_LINES))
        raise fail("parameter-count", message, excerpt=lines, hint="this is a fault of the compiler; please report it")
    counts = {"transformers": total, "keras": taken + constants}
    others = (("not consumed", left), ("merged", merged), ("constants", constants))
    return counts | {name: n for name, n in others if n}


def _merged(rows: Sequence[Row], owners: Mapping[str, str], sizes: Mapping[str, int]) -> Iterator[int]:
    """By how many each variable that is computed from several tensors has fewer elements than they have."""
    used = Counter(owner for row in rows for owner in {owners[path] for path in row.sources})
    for row in rows:
        taken = {owners[path] for path in row.sources}
        if len(taken) > 1 and computes(row) and all(used[owner] == 1 for owner in taken):
            yield sum(sizes[owner] for owner in taken) - math.prod(row.keras_shape)


def _unequal(rows: Sequence[Row], owners: Mapping[str, str], sizes: Mapping[str, int]) -> Iterator[str]:
    """The tensors, and those that go into one variable together, of which more or fewer elements are taken."""
    groups: dict[frozenset[str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.sources:
            groups[frozenset(owners[path] for path in row.sources)].append(row)
    for tensors, users in groups.items():
        there, taken = sum(sizes[path] for path in tensors), sum(math.prod(row.keras_shape) for row in users)
        if there != taken:
            names = ", ".join(row.keras for row in users)
            yield f"{', '.join(sorted(tensors))}: {there:,} elements, {taken:,} in {names}"[:LONGEST_LINE]


def _row(path: WeightPath, constants: Mapping[str, np.ndarray]) -> Row:
    if not path.constant:
        return Row(path.keras, path.sources, path.transform, (), "float32")
    value = constants[path.constant]
    shape = output_shape(path.transform, [value.shape])
    return Row(path.keras, (), path.transform, shape, _keras_dtype([str(value.dtype)]), constant=path.constant)


def _shaped(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Bound rows with the shape and dtype that their tensors give; the laws compare them with the variables."""
    return tuple(
        row if row.constant else
        replace(row, keras_shape=output_shape(row.transform, row.hf_shapes), keras_dtype=_keras_dtype(row.hf_dtypes))
        for row in rows
    )  # fmt: skip


def _keras_dtype(dtypes: Sequence[str]) -> str:
    """Weights are kept in float32, whatever floats the file has, and indices in the integers that Keras counts with."""
    if any("float" in dtype for dtype in dtypes):
        return "float32"
    return "int32" if dtypes[0] == "int64" else dtypes[0]


def bound_map(source: Source, directory: Path, rows: Sequence[Row], unread: Sequence[Row] = ()) -> WeightMap:
    """The map of a package with a checkpoint: every tensor of it is consumed, an alias, or listed with the reason.

    Args:
        source: the model.
        directory: of the checkpoint.
        rows: one per variable, over the model's parameters.
        unread: parts of those parameters that go into no variable.

    Raises:
        ConversionError: weights that do not fit the config, or a row without a tensor.
    """
    names = checkpoint_names(build_meta(source.config, source.model_class), read_checkpoint(directory))
    origins = {path: Origin(stored.tensors, stored.transform) for path, stored in names.stored.items()}
    bound = _shaped(bind_rows(rows, origins, Checkpoint(directory)))
    consumed = {name for row in bound for name in row.hf}
    aliases = tuple(Alias(name, of) for name, of in names.repeats.items() if of in consumed)
    taken = frozenset(consumed | {alias.hf for alias in aliases})
    listed = [*_not_consumed(source, names, bound, taken)]
    parts = bind_rows(unread, origins, Checkpoint(directory))
    shares = (share for part in parts for share in parts_listed(part))
    listed += [NotConsumed(name, _no_output(source), transform) for name, transform in shares]
    return WeightMap(bound, aliases, tuple(listed))


def _no_output(source: Source) -> str:
    return f"no output of {source.model_class.__name__} depends on it"


def _not_consumed(
    source: Source, names: CheckpointNames, rows: Sequence[Row], taken: frozenset[str]
) -> Iterable[NotConsumed]:
    for name, reason in names.unused.items():
        if name not in taken:
            yield NotConsumed(name, reason)
    no_output = _no_output(source)
    stored = {name for operation in names.stored.values() for name in operation.tensors}
    for name in sorted((stored | names.repeats.keys()) - taken - names.unused.keys()):
        yield NotConsumed(name, no_output)
    # Loading may split a tensor between parameters of which only some are read.
    read = {names.stored.get(path) for row in rows for path in row.sources}
    for operation in dict.fromkeys(names.stored.values()):
        name, *more = operation.tensors
        if operation not in read and operation.transform != "x" and name in taken and not more:
            yield NotConsumed(name, no_output, operation.transform)


def _planned(source: Source) -> tuple[dict[str, Origin], Any]:
    tensors = build_meta(source.config, source.model_class).state_dict()
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    dtypes = {name: str(value.dtype).removeprefix("torch.") for name, value in tensors.items()}
    return {name: Origin((name,)) for name in shapes}, PlannedCheckpoint(shapes, dtypes, Path(source.model))
