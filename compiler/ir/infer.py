"""Types of new nodes: Keras's own shape inference at several bindings of the symbols, solved back to expressions."""

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from hf2khc.diagnostics import fail
from hf2khc.ir.expr import Expr, evaluate, names_of, simplify
from hf2khc.ir.float64 import keras_on_torch, types_of_the_model
from hf2khc.ir.infer_special import CREATE, WINDOWED, infer_item, infer_windowed
from hf2khc.ir.signatures import bind_call, function
from hf2khc.ir.types import Tensor, Type, concrete

# Primes, so that no dimension is taken for another; several bindings, so that no dimension is taken for a number; a
# third, so that a line through two points is put to the test. There they are twice a prime, chosen so that no three
# sizes of a symbol leave the same rest by any number: what is padded to a multiple is not taken for a constant.
_SIZES = (
    (1009, 1013, 1019, 1021, 1031, 1033, 1039, 1049),
    (1151, 1153, 1163, 1171, 1181, 1187, 1193, 1201),
    (1538, 1306, 1486, 1382, 1438, 1454, 1418, 1318),
)
# Ops that move data and compute nothing: Keras may report int32 for an int64 operand, torch never does.
_STRUCTURAL = frozenset(
    [
        "reshape",
        "transpose",
        "broadcast_to",
        "concatenate",
        "stack",
        "split",
        "unstack",
        "take",
        "take_along_axis",
        "get_item",
        "expand_dims",
        "squeeze",
        "tile",
        "repeat",
        "pad",
        "flip",
        "roll",
        "moveaxis",
        "swapaxes",
        "where",
        "tril",
        "triu",
        "meshgrid",
        "slice",
        "diagonal",
        "maximum",
        "minimum",
        "max",
        "min",
        "abs",
        "negative",
        "clip",
        "sum",
        "cumsum",
        "prod",
        "add",
        "subtract",
        "multiply",
        "floor_divide",
        "mod",
        "sort",
    ]
)


def infer(op: str, operands: Sequence[Type | None], attrs: Mapping[str, object]) -> Type:
    """The type of an `ops.*` or `hub.*` node, or of a dropout, which keeps it.

    Args:
        op: a name in `keras.ops`, with its prefix.
        operands: types in the order of the operands, `None` where absent.
        attrs: as in `Node.attrs`, `Expr`s over symbols included.

    Raises:
        ConversionError: Keras rejects the call, or a dimension is no simple expression of those of the operands.
    """
    if op == "layers.Dropout":
        return operands[0]  # type: ignore[return-value]
    if op == "ops.get_item":
        return infer_item(operands[0], attrs["key"])
    if op in WINDOWED and any(names_of(dim) for dim in operands[0].shape[1:-1]):  # type: ignore[union-attr]
        return infer_windowed(op, operands, attrs)
    names = sorted(names_of(tuple(attrs.values())).union(*(t.symbols for t in operands if isinstance(t, Tensor))))
    envs = [dict(zip(names, primes, strict=False)) for primes in _SIZES]
    if len(names) > len(_SIZES[0]):
        raise fail("shape-inference", f"{op} has more than {len(_SIZES[0])} symbols: {', '.join(names)}")
    results = [_at(op, operands, attrs, env) for env in envs]
    known = _dimensions(operands, attrs)

    def solve(dtype: str, shapes: Sequence[tuple]) -> Tensor:
        dims = tuple(_solve(op, sizes, known, envs) for sizes in zip(*shapes, strict=True))
        return Tensor(_dtype(op, dtype, operands, attrs), dims)

    if isinstance(results[0], list):
        return tuple(solve(same[0][0], [shape for _, shape in same]) for same in zip(*results, strict=True))
    return solve(results[0][0], [shape for _, shape in results])


def _at(op: str, operands, attrs, env):
    """(dtype, shape) of the result, or a list of them, with the symbols bound."""
    types = tuple(None if t is None else (t.dtype, concrete(t, env)) for t in operands)
    values = tuple((name, evaluate(value, env)) for name, value in attrs.items())
    return _keras(op, types, values, tuple(type(v) for _, v in values))


@functools.lru_cache(maxsize=10_000)
def _keras(op: str, types: tuple, attrs: tuple, _kinds: tuple):
    """Keras's symbolic evaluation at concrete shapes (`_kinds` keeps 1, 1.0 and True apart in the cache)."""
    keras = keras_on_torch()
    if op in CREATE:
        return CREATE[op](types, dict(attrs))
    if op == "ops.dot_product_attention":  # Keras reports the query's shape; values may have another width
        return types[0][0], (*types[0][1][:-1], types[2][1][-1])
    if op == "ops.conv":  # Keras's shape function knows no groups
        types = (types[0], (types[1][0], (*types[1][1][:-2], types[0][1][-1], types[1][1][-1])), *types[2:])
    if op.startswith("ops.bitwise_"):  # Keras reports the first one's shape
        broadcast = np.broadcast_shapes(*(shape for _, shape in types))
        types = tuple((dtype, broadcast) for dtype, _ in types)
    tensors = [None if t is None else keras.KerasTensor(t[1], dtype=t[0]) for t in types]
    args, keywords = bind_call(op, tensors, dict(attrs))
    called = function(op)
    if called is None:
        raise fail("unknown-op", f"{op} does not exist in keras.ops")
    try:
        with types_of_the_model():
            result = called(*args, **keywords)
    except Exception as error:
        shown = ", ".join("_" if t is None else f"{t[0]}{list(t[1])}" for t in types)
        shown += "".join(f", {name}={value}" for name, value in attrs)
        raise fail("shape-inference", f"keras.{op} does not accept ({shown}): {error}") from error
    if isinstance(result, list | tuple):
        return [(r.dtype, tuple(r.shape)) for r in result]
    return result.dtype, tuple(result.shape)


def _dtype(op: str, dtype: str, operands, attrs) -> str:
    """Keras's dtype, save that an op over int64 operands stays int64."""
    first = next((t.dtype for t in operands if isinstance(t, Tensor)), None)
    wide = any(isinstance(t, Tensor) and t.dtype == "int64" for t in operands)
    if op.partition(".")[2] in _STRUCTURAL and attrs.get("dtype") is None and dtype == "int32" and wide:
        return "int64"
    return "int64" if op.endswith((".argmax", ".argmin", ".argsort")) and first is not None else dtype


def _dimensions(operands, attrs) -> list:
    """Every dimension of the operands and every integer of the attributes, each once, the shortest first."""
    found: dict[str, object] = {}
    for type_ in operands:
        if isinstance(type_, Tensor):
            found.update((str(dim), dim) for dim in type_.shape)
    for value in attrs.values():
        found.update((str(v), v) for v in _integers(value))
    return sorted(
        found.values(), key=lambda dim: (not isinstance(dim, Expr), len(names_of(dim)), str(dim) not in names_of(dim))
    )


def _integers(value) -> Iterator:
    if isinstance(value, tuple):
        yield from itertools.chain.from_iterable(map(_integers, value))
    elif isinstance(value, Expr) or (isinstance(value, int) and not isinstance(value, bool)):
        yield value


def _solve(op: str, sizes: tuple[int, ...], known: list, envs) -> int | Expr:
    """The smallest expression of known dimensions that has these sizes at the bindings."""
    if len(set(sizes)) == 1:
        return sizes[0]
    for candidate in _candidates(sizes, known, envs):
        try:
            values = tuple(evaluate(candidate, env) for env in envs)
        except ZeroDivisionError:
            continue
        if values == sizes:
            return candidate
    raise fail("shape-inference", f"a dimension of {op} is no simple expression of {', '.join(map(str, known))}")


def _candidates(sizes, known: list, envs) -> Iterator[int | Expr]:
    symbolic = [dim for dim in known if isinstance(dim, Expr)]
    yield from symbolic
    for dim in symbolic:  # an affine function of one dimension
        yield from _affine(dim, sizes, envs)
    for a, b in itertools.combinations_with_replacement(known, 2):
        for text in (f"({a}) * ({b})", f"({a}) + ({b})", f"({a}) - ({b})", f"({b}) - ({a})"):
            yield simplify(text)
    for a, b in itertools.product(symbolic, known):
        yield simplify(f"({a}) // ({b})")
        yield simplify(f"-(-({a}) // ({b}))")
    yield simplify(" + ".join(f"({dim})" for dim in known) or "0")
    for group in itertools.combinations(known, 3):
        yield simplify(" * ".join(f"({dim})" for dim in group))
        yield simplify(" + ".join(f"({dim})" for dim in group))


def _affine(dim: Expr, sizes, envs) -> Iterator[int | Expr]:
    values = [evaluate(dim, env) for env in envs]
    if values[0] == values[1]:
        return
    slope, rest = divmod(sizes[0] - sizes[1], values[0] - values[1])
    offset = sizes[0] - slope * values[0]
    if rest == 0:
        product = f"({dim})" if slope == 1 else f"({dim}) * {slope}"
        yield simplify(product if offset == 0 else f"{product} {'+' if offset > 0 else '-'} {abs(offset)}")
