"""What must hold of every weight map before a byte is moved. Each law reports everything that breaks it."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hf2khc.diagnostics import ConversionError, Diagnostic
from hf2khc.weights.checkpoint import Checkpoint
from hf2khc.weights.elements import element_problems
from hf2khc.weights.rows import Row, WeightMap
from hf2khc.weights.transform import output_shape

_BLOCK = 1 << 24


@dataclass(frozen=True)
class Variable:
    """A variable of the Keras model: `path`, shape, dtype name."""

    path: str
    shape: tuple[int, ...]
    dtype: str


def check_laws(
    weights: WeightMap,
    layout: Sequence[Variable],
    checkpoint: Checkpoint | None,
    constants: Mapping[str, np.ndarray] | None = None,
) -> None:
    """All laws of a weight map.

    Args:
        weights: the map; its rows are bound to the checkpoint.
        layout: the variables of the Keras model.
        checkpoint: None when there is none: then only shapes, assignment and elements are checked.
        constants: the arrays that rows name with `constant`.

    Raises:
        ConversionError: one diagnostic per broken law, naming everything that breaks it.
    """
    laws: list[tuple[str, str, list[str]]] = [
        ("weight-assignment", "every Keras variable must be assigned exactly once", _assignment(weights.rows, layout)),
        ("weight-shape", "a weight does not fit its variable", _shapes(weights.rows, layout, constants or {})),
    ]
    if checkpoint is not None:
        laws += [
            ("weight-consumption", "every tensor must be accounted for once", _tensors(weights, checkpoint)),
            ("weight-alias", "an alias must repeat its tensor", _aliases(weights, checkpoint)),
        ]
    broken = [(code, message, lines) for code, message, lines in laws if lines]
    if not broken:  # elements can only be followed through transforms that fit
        lines = element_problems(weights.rows, weights.not_consumed)
        broken = [("weight-count", "every element of a tensor must be used exactly once", lines)] if lines else []
    if broken:
        raise ConversionError(*(Diagnostic(code, message, excerpt="\n".join(lines)) for code, message, lines in broken))


def _assignment(rows: Sequence[Row], layout: Sequence[Variable]) -> list[str]:
    assigned = Counter(row.keras for row in rows)
    paths = Counter(variable.path for variable in layout)
    lines = [f"{path}: two variables have this path" for path, count in paths.items() if count > 1]
    lines += [f"{path}: not assigned" for path in paths if path not in assigned]
    lines += [f"{path}: assigned {count} times" for path, count in assigned.items() if count > 1]
    lines += [f"{path}: the model has no such variable" for path in assigned if path not in paths]
    return lines


def _shapes(rows: Iterable[Row], layout: Sequence[Variable], constants: Mapping[str, np.ndarray]) -> list[str]:
    variables = {variable.path: variable for variable in layout}
    lines = []
    for row in rows:
        variable = variables.get(row.keras)
        if variable and (row.keras_shape, row.keras_dtype) != (variable.shape, variable.dtype):
            found = f"{variable.dtype}{variable.shape}"
            lines.append(f"{row.keras}: {found}, the row says {row.keras_dtype}{row.keras_shape}")
        if any(_kind(dtype) != _kind(row.keras_dtype) for dtype in row.hf_dtypes):
            lines.append(f"{row.keras}: {row.keras_dtype} cannot hold {', '.join(row.hf_dtypes)}")
        if row.constant and row.constant not in constants:
            lines.append(f"{row.keras}: no constant named {row.constant}")
            continue
        shapes = [np.shape(constants[row.constant])] if row.constant else list(row.hf_shapes)
        try:
            shape = output_shape(row.transform, shapes)
        except ConversionError as error:
            lines.append(f"{row.keras}: {error.diagnostics[0].message}")
            continue
        if shape != row.keras_shape:
            given = f"{row.transform} of {', '.join(map(str, shapes))}"
            lines.append(f"{row.keras}: {given} gives {shape}, not {row.keras_shape}")
    return lines


def _kind(dtype: str) -> str:
    """The family of a dtype: values may be rounded on the way, never turned into another kind of number."""
    return "float" if "float" in dtype else "bool" if dtype == "bool" else "int"


def _tensors(weights: WeightMap, checkpoint: Checkpoint) -> list[str]:
    roles: dict[str, set[str]] = defaultdict(set)
    for row in weights.rows:
        for name in row.hf:
            roles[name].add("consumed")
    for alias in weights.aliases:
        roles[alias.hf].add("an alias")
    for item in weights.not_consumed:
        if item.part == "x" or item.hf not in roles:
            roles[item.hf].add("not consumed")
    lines = [f"{name}: neither consumed, nor an alias, nor listed" for name in checkpoint if name not in roles]
    lines += [f"{name}: not in the checkpoint" for name in roles if name not in checkpoint]
    lines += [f"{name}: {' and '.join(sorted(role))}" for name, role in roles.items() if len(role) > 1]
    lines += [f"{item.hf}: listed without a reason" for item in weights.not_consumed if not item.reason]
    for row in weights.rows:
        for name, shape, dtype in zip(row.hf, row.hf_shapes, row.hf_dtypes, strict=True):
            if name in checkpoint and (checkpoint.shape(name), checkpoint.dtype(name)) != (shape, dtype):
                found = f"{checkpoint.dtype(name)}{checkpoint.shape(name)}"
                lines.append(f"{name}: {found} in the checkpoint, the row says {dtype}{shape}")
    return lines


def _aliases(weights: WeightMap, checkpoint: Checkpoint) -> list[str]:
    consumed = {name for row in weights.rows for name in row.hf}
    lines = []
    for alias in weights.aliases:
        if alias.of not in consumed:
            lines.append(f"{alias.hf}: repeats {alias.of}, which is not consumed")
        elif alias.hf in checkpoint and alias.of in checkpoint and not _equal(checkpoint, alias.hf, alias.of):
            lines.append(f"{alias.hf}: differs from {alias.of}")
    return lines


def _equal(checkpoint: Checkpoint, first: str, second: str) -> bool:
    """Whether two tensors hold the same values, compared a block at a time."""
    shape = checkpoint.shape(first)
    if shape != checkpoint.shape(second):
        return False
    rows = max(1, _BLOCK // max(1, math.prod(shape[1:])))
    return all(
        np.array_equal(checkpoint.read(first, i, i + rows), checkpoint.read(second, i, i + rows))
        for i in range(0, shape[0] if shape else 1, rows)
    )
