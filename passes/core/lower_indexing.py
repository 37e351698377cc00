"""Lower torch's indexing to `ops.get_item`, `ops.take` and `ops.take_along_axis`."""

from collections.abc import Sequence

from hf2khc.ir.expr import Expr, same, simplify
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.signatures import WHOLE, axis_key
from hf2khc.passes.core.lowering import Builder, axis_of, flag, lower, product

# torch's way to write "to the end".
_END = 2**63 - 1
# Their second result are indices.
_WITH_INDICES = ("aten.topk", "aten.sort", "aten.max", "aten.min")
# Where torch has a size it can only be counted from the front; these keep a value that is not negative as it is.
_KEEP_SIGN = ("unsqueeze", "view", "reshape", "expand", "expand_dims", "broadcast_to", "to", "cast", "transpose")


def lower_indexing(program: Program) -> Program:
    """Turn slices, selections, gathers and indexing by tensors into `ops.*`.

    Indices on several axes at once are one index into the axes taken as one.

    Before:

        graph Last(%x: f32[batch, seq, 8]) {
          %head: f32[batch, seq, 4] = aten.slice(%x, dim=2, start=0, end=4)
          %y: f32[batch, 4] = aten.select(%head, dim=1, index=0)
          return %y
        }

        entry Last

    After:

        graph Last(%x: f32[batch, seq, 8]) {
          %head: f32[batch, seq, 4] = ops.get_item(%x, key=("ellipsis", ("slice", none, 4, none)))
          %y: f32[batch, 4] = ops.get_item(%head, key=(("slice", none, none, none), 0))
          return %y
        }

        entry Last
    """
    return lower(program, "lower_indexing", _LOWERINGS)


def _slice(builder: Builder, node: Node) -> list[Node]:
    start, end = node.attrs.get("start"), node.attrs.get("end")
    start = None if start == 0 else start
    step = flag(node, "step", 1)
    entry = ("slice", start, None if end is None or end == _END else end, None if step == 1 else step)
    return _item(builder, node, entry)


def _narrow(builder: Builder, node: Node) -> list[Node]:
    start, length = node.attrs["start"], node.attrs["length"]
    return _item(builder, node, ("slice", start, simplify(f"({start}) + ({length})"), None))


def _select(builder: Builder, node: Node) -> list[Node]:
    return _item(builder, node, node.attrs["index"])


def _item(builder: Builder, node: Node, entry: object) -> list[Node]:
    """Index one axis, the others whole."""
    rank = builder.tensor(node.used[0]).rank
    return builder.finish("ops.get_item", node.used[0], key=axis_key(entry, axis_of(node, rank), rank))


def _index(builder: Builder, node: Node) -> list[Node] | None:
    source, *indices = node.operands
    assert source is not None
    axes = [axis for axis, index in enumerate(indices) if index is not None]
    given = [index for index in indices if index is not None]
    if any(builder.tensor(index).dtype == "bool" for index in given):
        return None
    if len(axes) == 1:
        return builder.finish("ops.take", source, given[0], axis=axes[0])
    first = axes[0]
    if axes != list(range(first, first + len(axes))):  # torch then puts the indexed axes in front
        rest = [axis for axis in range(builder.tensor(source).rank) if axis not in axes]
        source, first = builder.add("ops.transpose", source, axes=(*axes, *rest)), 0
    shape = builder.tensor(source).shape
    behind = first + len(axes)
    sizes = shape[first:behind]
    merged = simplify(" * ".join(f"({size})" for size in sizes))
    flat = builder.add("ops.reshape", source, newshape=(*shape[:first], merged, *shape[behind:]), title="flat")
    return builder.finish("ops.take", flat, _linear(builder, given, sizes), axis=first)


def _linear(builder: Builder, indices: Sequence[str], sizes: Sequence) -> str:
    """Indices into several axes as one index into the axes taken as one."""
    position = positive(builder, indices[0], sizes[0])
    for index, size in zip(indices[1:], sizes[1:], strict=True):
        scaled = builder.add("ops.multiply", position, None, x2=size, title="row")
        position = builder.add("ops.add", scaled, positive(builder, index, size), title="position")
    return position


def positive(builder: Builder, index: str, size: int | Expr) -> str:
    """An index counted from the front."""
    if _is_nonnegative(builder.graph, index):
        return index
    return builder.add("ops.mod", index, None, x2=size, title="from_front")


def _is_nonnegative(graph: Graph, name: str) -> bool:
    node = graph[name]
    short = node.op.rpartition(".")[2]
    if short == "arange":
        start, step = node.attrs.get("start", 0), node.attrs.get("step", 1)
        return isinstance(start, int) and start >= 0 and isinstance(step, int) and step > 0
    if short in _KEEP_SIGN:
        return _is_nonnegative(graph, node.used[0])
    if node.op == "item":
        return node.attrs["index"] == 1 and graph[node.used[0]].op in _WITH_INDICES
    return short in ("argmax", "argmin", "argsort")


def _gather(builder: Builder, node: Node) -> list[Node]:
    source, index = node.used
    held, wanted = builder.tensor(source), builder.tensor(index)
    axis = axis_of(node, held.rank)
    pairs = list(zip(held.shape, wanted.shape, strict=True))
    key = [WHOLE if i == axis or same(a, b) else ("slice", None, b, None) for i, (a, b) in enumerate(pairs)]
    if any(entry != WHOLE for entry in key):
        source = builder.add("ops.get_item", source, key=tuple(key))
    return builder.finish("ops.take_along_axis", source, index, axis=axis)


def _unfold(builder: Builder, node: Node) -> list[Node]:
    """Sliding windows: each taken by its positions, their axis moved to the end."""
    x = node.used[0]
    axis = axis_of(node, builder.tensor(x).rank, "dimension")
    count, size, step = node.tensor.shape[axis], node.attrs["size"], node.attrs["step"]
    index = _positions(builder, (count, size), (step, 1))
    windows = builder.add("ops.take", x, index, axis=axis, title="windows")
    return builder.finish("ops.moveaxis", windows, source=axis + 1, destination=-1)


def _positions(builder: Builder, counts: Sequence, steps: Sequence) -> str:
    """An index with an axis for each count: the sum of what they count, each in steps of its own."""
    index = ""
    for axis, (count, step) in enumerate(zip(counts, steps, strict=True)):
        behind = len(counts) - axis - 1
        places = builder.add("ops.arange", start=0, stop=count, dtype="int64", title="starts" if behind else "offsets")
        for place in range(behind):
            places = builder.add("ops.expand_dims", places, axis=place + 1)
        if step != 1:
            places = builder.add("ops.multiply", places, None, x2=step, title="first")
        index = builder.add("ops.add", index, places, title="positions") if index else places
    return index


def _as_strided(builder: Builder, node: Node) -> list[Node] | None:
    """Rows taken by their places, as overlapping chunks are; None where single elements are."""
    x, size, stride = node.used[0], node.tensor.shape, node.attrs["stride"]
    shape, strides = builder.tensor(x).shape, _contiguous(builder.tensor(x).shape)
    assert isinstance(stride, tuple)
    if flag(node, "storage_offset", 0) not in (0, None):
        return None
    lead = _alike(size, shape, stride, strides)
    most = min(_alike(size[::-1], shape[::-1], stride[::-1], strides[::-1]), len(shape) - lead - 1)
    for rest in range(most, -1, -1):
        inner, end = len(shape) - rest, len(size) - rest
        steps = _steps(stride[lead:end], product(shape[inner:]))
        if steps:
            newshape = (*shape[:lead], product(shape[lead:inner]), *shape[inner:])
            rows = builder.add("ops.reshape", x, newshape=newshape, title="rows")
            return builder.finish("ops.take", rows, _positions(builder, size[lead:end], steps), axis=lead)
    return None


def _alike(size: Sequence, shape: Sequence, stride: Sequence, strides: Sequence) -> int:
    """How many axes are those of the source, from the first on; one at least is not."""
    alike = [same(n, m) and same(s, t) for n, m, s, t in zip(size, shape, stride, strides, strict=False)]
    return min(alike.index(False) if False in alike else len(alike), len(size) - 1, len(shape) - 1)


def _steps(strides: Sequence, width: object) -> list | None:
    """Strides as numbers of rows; None where one is no whole number of them."""
    steps = [simplify(f"({stride}) // ({width})") for stride in strides]
    whole = all(same(simplify(f"({n}) * ({width})"), stride) for n, stride in zip(steps, strides, strict=True))
    return steps if whole else None


def _contiguous(shape: Sequence) -> list:
    """The strides of a tensor whose elements stand in their order."""
    return [product(shape[axis + 1 :]) for axis in range(len(shape))]


def _fold(builder: Builder, node: Node) -> list[Node] | None:
    """Patches put side by side; None where they overlap."""
    kernel, stride = node.attrs["kernel_size"], node.attrs.get("stride", (1, 1))
    spread = any(flag(node, "padding", ())) or any(step != 1 for step in flag(node, "dilation", ()))  # type: ignore[attr-defined]
    if kernel != stride or spread or node.tensor.rank != 4:
        return None
    batch, channels, *sides = node.tensor.shape
    counts = [simplify(f"({side}) // {size}") for side, size in zip(sides, kernel, strict=True)]  # type: ignore[arg-type]
    apart = builder.add("ops.reshape", node.used[0], newshape=(batch, channels, *kernel, *counts), title="patches")  # type: ignore[misc]
    together = builder.add("ops.transpose", apart, axes=(0, 1, 4, 2, 5, 3), title="rows")
    return builder.finish("ops.reshape", together, newshape=node.tensor.shape)


def _pad(builder: Builder, node: Node) -> list[Node] | None:
    x, widths, mode = node.used[0], node.attrs["pad"], flag(node, "mode", "constant")
    assert isinstance(widths, tuple)
    if mode == "constant" and all(isinstance(width, int) for width in widths):
        x, widths = _cut(builder, x, widths)
    if any(map(_may_cut, widths)):
        return None
    pairs = list(zip(widths[::2], widths[1::2], strict=True))[::-1]
    width = ((0, 0),) * (builder.tensor(x).rank - len(pairs)) + tuple(pairs)
    if mode in ("replicate", "circular") or mode == "reflect" and not _reflects(width):
        return _repeated_border(builder, x, width, mode)
    value = node.attrs.get("value")
    if isinstance(value, float) and not node.tensor.is_floating:
        value = int(value)  # Torch takes any number, TensorFlow one of the dtype.
    attrs = {"mode": mode} if mode != "constant" else {"constant_values": value} if value else {}
    return builder.finish("ops.pad", x, pad_width=width, **attrs)


def _cut(builder: Builder, x: str, widths: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """What is left where widths are negative, and the widths by which that is padded."""
    if min(widths) >= 0:
        return x, widths
    pairs = zip(widths[::2], widths[1::2], strict=True)
    key = ("ellipsis", *[("slice", -min(low, 0) or None, min(high, 0) or None, None) for low, high in pairs][::-1])
    return builder.add("ops.get_item", x, key=key, title="cut"), tuple(max(width, 0) for width in widths)


def _may_cut(width: int | Expr) -> bool:
    """Whether a width is negative, where it is a size for some of the small ones."""
    if not isinstance(width, Expr):
        return width < 0
    return any(width.evaluate(dict.fromkeys(width.names, size)) < 0 for size in range(1, 130))


def _reflects(width: tuple) -> bool:
    """Whether Keras reflects at these borders on torch, which takes one axis or two before the first padded one."""
    first = min((axis for axis, pair in enumerate(width) if any(pair)), default=0)
    return first in (1, 2) and len(width) - first <= 3


def _repeated_border(builder: Builder, x: str, width: tuple, mode: object) -> list[Node]:
    """Padding that repeats values, which Keras's own has not on every backend: taken at positions beyond the border."""
    padded = [axis for axis, pair in enumerate(width) if any(pair)]
    for axis in padded:
        size = builder.tensor(x).shape[axis]
        stop = simplify(f"({size}) + {width[axis][1]}")
        index = builder.add("ops.arange", start=-width[axis][0], stop=stop, dtype="int64", title="index")
        if mode == "reflect":
            index = builder.add("ops.abs", index, title="index")
            back = builder.add("ops.add", builder.add("ops.negative", index), None, x2=simplify(f"2 * ({size}) - 2"))
            index = builder.add("ops.minimum", index, back, title="reflected")
        elif mode == "circular":
            index = builder.add("ops.mod", index, None, x2=size, title="wrapped")
        else:
            index = builder.add("ops.clip", index, x_min=0, x_max=simplify(f"({size}) - 1"), title="clipped")
        if axis == padded[-1]:
            break
        x = builder.add("ops.take", x, index, axis=axis)
    return builder.finish("ops.take", x, index, axis=axis)


_LOWERINGS = {
    "aten.slice": _slice,
    "aten.narrow": _narrow,
    "aten.select": _select,
    "aten.index": _index,
    "aten.gather": _gather,
    "aten.as_strided": _as_strided,
    "aten.unfold": _unfold,
    "aten.pad": _pad,
    "aten.col2im": _fold,
    "aten.constant_pad_nd": _pad,
}
