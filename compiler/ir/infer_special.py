"""Types that Keras's shape inference does not give, or at a cost in memory: indexing, windows, new values."""

import math
from collections.abc import Mapping, Sequence

from hf2khc.diagnostics import fail
from hf2khc.ir.expr import evaluate, names_of, simplify
from hf2khc.ir.signatures import axis_entries
from hf2khc.ir.types import Tensor, Type

# A size larger than any number subtracted from it.
_LARGE = 10**6


def infer_item(source: Type | None, key) -> Tensor:
    """Indexing: a symbolic end lies within its axis, so that the trace's own sizes come out."""
    assert isinstance(source, Tensor)
    left, shape = list(source.shape), []
    for entry in axis_entries(key, source.rank):
        if entry == "newaxis":
            shape.append(1)
        elif isinstance(entry, tuple):
            shape.append(_length(left.pop(0), *entry[1:]))
        else:
            left.pop(0)
    return Tensor(source.dtype, tuple(shape))


def _length(dim, start, stop, step):
    """The length of a slice of an axis."""
    if not names_of((dim, start, stop, step)):
        return len(range(*slice(start, stop, step).indices(dim)))
    start, stop = place_on(dim, start, 0), place_on(dim, stop, dim)
    length = simplify(f"({stop}) - ({start})") if start != 0 else stop
    return length if step in (None, 1) else simplify(f"-(-({length}) // {step})")


def place_on(dim, value, default):
    """Where a border of a slice lies on an axis, counted from the front."""
    if value is None:
        return default
    # `seq - 5` and `63 - seq` are places, `-seq` counts from the end.
    is_negative = all(evaluate(value, dict.fromkeys(names_of(value), size)) < 0 for size in (1, _LARGE))
    return simplify(f"({dim}) + ({value})") if is_negative else value


WINDOWED = ("ops.conv", "ops.max_pool", "ops.average_pool")


def infer_windowed(op: str, operands: Sequence[Type | None], attrs: Mapping[str, object]) -> Tensor:
    """A convolution or pool over axes of free size, which a size rounded down does not reveal."""
    x, kernel = (*operands, None)[:2]
    assert isinstance(x, Tensor)
    rank = x.rank - 2
    if attrs.get("padding", "valid") != "valid" or attrs.get("data_format") != "channels_last":
        raise fail("shape-inference", f"{op} over an axis of free size must be channels last and unpadded")
    size = kernel.shape[:rank] if isinstance(kernel, Tensor) else _each(attrs["pool_size"], rank)
    steps = _each(attrs.get("dilation_rate", 1), rank)
    strides = _each(attrs.get("strides") or (size if kernel is None else 1), rank)
    spatial = tuple(
        simplify(
            f"(({dim}) - {(window - 1) * step + 1}) // {stride} + 1"
            if stride != 1
            else f"({dim}) - {(window - 1) * step}"
        )
        for dim, window, step, stride in zip(x.shape[1:-1], size, steps, strides, strict=True)
    )
    channels = kernel.shape[-1] if isinstance(kernel, Tensor) else x.shape[-1]
    return Tensor(x.dtype, (x.shape[0], *spatial, channels))


def _each(value, rank: int) -> tuple:
    return value if isinstance(value, tuple) else (value,) * rank


def _default_dtype(value) -> str:
    if isinstance(value, bool):
        return "bool"
    return "float32" if isinstance(value, float) else "int32"


def _arange(types, attrs):
    start, stop, step = attrs.get("start", 0), attrs.get("stop"), attrs.get("step") or 1
    start, stop = (0, start) if stop is None else (start, stop)
    return attrs.get("dtype") or _default_dtype(start + stop + step), (max(0, math.ceil((stop - start) / step)),)


def _filled(types, attrs):
    shape = attrs["shape"]
    value = attrs.get("fill_value", 1.0)
    default = types[1][0] if len(types) > 1 and types[1] else _default_dtype(value)
    return attrs.get("dtype") or default, shape if isinstance(shape, tuple) else (shape,)


def _matrix(types, attrs):
    return attrs.get("dtype") or "float32", (attrs["N"], attrs["N"] if attrs.get("M") is None else attrs["M"])


def _linspace(types, attrs):
    return attrs.get("dtype") or "float32", (attrs["num"],)


def _adaptive(types, attrs):
    """Keras's own takes the layout for another one."""
    dtype, shape = types[0]
    return dtype, (shape[0], *_each(attrs["output_size"], len(shape) - 2), shape[-1])


# Evaluated eagerly by Keras, at a cost in memory that shapes need not have.
CREATE = {"ops.arange": _arange, "ops.full": _filled, "ops.ones": _filled, "ops.zeros": _filled, "ops.eye": _matrix,
           "ops.tri": _matrix, "ops.linspace": _linspace, "ops.adaptive_average_pool": _adaptive,
           "ops.adaptive_max_pool": _adaptive}  # fmt: skip
