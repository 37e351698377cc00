"""The weight map as data: which checkpoint tensors, through which transform, become which Keras variable."""

import ast
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hf2khc.diagnostics import ConversionError, Diagnostic, fail
from hf2khc.weights.checkpoint import Checkpoint
from hf2khc.weights.transform import parse, source_names

FORMAT = 1
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """How one Keras variable is filled.

    Args:
        keras: `variable.path` of the variable.
        sources: parameter paths in the transformers model, in the order of the transform's names; empty for a constant.
        transform: expression over `x` (one source) or `x0`, `x1`, ...; over `hf` once the row is bound.
        keras_shape: shape of the variable.
        keras_dtype: Keras dtype name of the variable.
        hf: names of the tensors in the checkpoint, in the order of the transform's names.
        hf_shapes: their shapes.
        hf_dtypes: their dtypes, by Keras name.
        constant: name of an array that the compiler computed, which takes the place of sources; else empty.
    """

    keras: str
    sources: tuple[str, ...]
    transform: str
    keras_shape: Shape
    keras_dtype: str
    hf: tuple[str, ...] = ()
    hf_shapes: tuple[Shape, ...] = ()
    hf_dtypes: tuple[str, ...] = ()
    constant: str = ""


@dataclass(frozen=True)
class Origin:
    """Where a parameter of the transformers model comes from in the checkpoint.

    Args:
        tensors: names in the checkpoint.
        transform: expression over them that gives the parameter, what transformers does when it loads.
    """

    tensors: tuple[str, ...]
    transform: str = "x"


@dataclass(frozen=True)
class Alias:
    """A tensor of the checkpoint that repeats another one (tied weights)."""

    hf: str
    of: str


@dataclass(frozen=True)
class NotConsumed:
    """A tensor of the checkpoint that no variable needs, and why; or, with a `part`, the elements that it picks."""

    hf: str
    reason: str
    part: str = "x"


@dataclass(frozen=True)
class WeightMap:
    """All rows, with every other tensor of the checkpoint accounted for."""

    rows: tuple[Row, ...]
    aliases: tuple[Alias, ...] = ()
    not_consumed: tuple[NotConsumed, ...] = ()


def to_json(weights: WeightMap) -> dict[str, Any]:
    """The content of `weight_map.json`."""
    return {
        "format": FORMAT,
        "rows": [row_to_json(row) for row in weights.rows],
        "aliases": [asdict(alias) for alias in weights.aliases],
        "not_consumed": [asdict(item) for item in weights.not_consumed],
    }


def row_to_json(row: Row) -> dict[str, Any]:
    """One row, without what does not apply to it."""
    return {key: value for key, value in asdict(row).items() if value or key in ("keras", "hf", "keras_shape")}


def row_from_json(data: Mapping[str, Any]) -> Row:
    """The row that `row_to_json` wrote."""
    fields = dict(data)
    for key in ("sources", "hf", "hf_dtypes", "keras_shape"):
        fields[key] = tuple(fields.get(key, ()))
    fields["hf_shapes"] = tuple(tuple(shape) for shape in fields.get("hf_shapes", ()))
    return Row(**fields)


def from_json(data: Mapping[str, Any]) -> WeightMap:
    """The weight map that `to_json` wrote.

    Raises:
        ConversionError: `weight-map`, for another format.
    """
    if data.get("format") != FORMAT:
        raise fail("weight-map", f"weight_map.json has format {data.get('format')!r}, expected {FORMAT}")
    return WeightMap(
        tuple(row_from_json(row) for row in data["rows"]),
        tuple(Alias(**alias) for alias in data["aliases"]),
        tuple(NotConsumed(**item) for item in data["not_consumed"]),
    )


def write_weight_map(path: Path, weights: WeightMap) -> None:
    """Write `weight_map.json`, one row per line so that it can be read and compared."""
    data = to_json(weights)
    lists = ",\n".join(f'  "{key}": {_lines(data[key])}' for key in ("rows", "aliases", "not_consumed"))
    path.write_text(f'{{\n  "format": {FORMAT},\n{lists}\n}}\n', encoding="utf-8")


def read_weight_map(path: Path) -> WeightMap:
    """Read `weight_map.json`."""
    return from_json(json.loads(path.read_text(encoding="utf-8")))


def _lines(items: Sequence[Mapping[str, Any]]) -> str:
    if not items:
        return "[]"
    return "[\n" + ",\n".join(f"    {json.dumps(item)}" for item in items) + "\n  ]"


def bind_rows(rows: Iterable[Row], origins: Mapping[str, Origin], checkpoint: Checkpoint) -> tuple[Row, ...]:
    """Rows over parameter paths turned into rows over the tensors of a checkpoint.

    Args:
        rows: rows whose transforms speak of `sources`.
        origins: for every source, its tensors and the transform that loading applies to them.
        checkpoint: gives shapes and dtypes.

    Raises:
        ConversionError: `missing-weight`, naming every source without an origin and every tensor not in the file.
    """
    rows = tuple(rows)
    missing = sorted({s for row in rows for s in row.sources if s not in origins})
    absent = sorted({t for o in origins.values() for t in o.tensors if t not in checkpoint})
    used = {t for row in rows for s in row.sources if s in origins for t in origins[s].tensors}
    problems = [f"{s}: no tensor of the checkpoint gives it" for s in missing]
    problems += [f"{t}: not in the checkpoint" for t in absent if t in used]
    if problems:
        message = f"{len(problems)} weights of the model are not in the checkpoint"
        raise ConversionError(Diagnostic("missing-weight", message, str(checkpoint.directory), "\n".join(problems)))
    return tuple(_bind(row, origins, checkpoint) if row.sources else row for row in rows)


def _bind(row: Row, origins: Mapping[str, Origin], checkpoint: Checkpoint) -> Row:
    chosen = [origins[source] for source in row.sources]
    tensors = tuple(dict.fromkeys(t for origin in chosen for t in origin.tensors))
    names = dict(zip(tensors, source_names(len(tensors)), strict=True))
    inner = {
        outer: _renamed(origin, names) for outer, origin in zip(source_names(len(row.sources)), chosen, strict=True)
    }
    tree = _Substitute(inner).visit(ast.parse(row.transform, mode="eval"))
    return replace(
        row,
        transform=ast.unparse(tree),
        hf=tensors,
        hf_shapes=tuple(checkpoint.shape(t) for t in tensors),
        hf_dtypes=tuple(checkpoint.dtype(t) for t in tensors),
    )


def _renamed(origin: Origin, names: Mapping[str, str]) -> ast.expr:
    """A transform of loading over the names that the whole row gives to its tensors."""
    old = source_names(len(origin.tensors))
    renaming = {name: ast.Name(names[tensor]) for name, tensor in zip(old, origin.tensors, strict=True)}
    return _Substitute(renaming).visit(ast.parse(origin.transform, mode="eval")).body


class _Substitute(ast.NodeTransformer):
    """Replaces source names by expressions."""

    def __init__(self, values: Mapping[str, ast.expr]):
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.values.get(node.id, node)


def identity(row: Row) -> bool:
    """Whether a row copies its one tensor as it is."""
    return isinstance(parse(row.transform), ast.Name)
