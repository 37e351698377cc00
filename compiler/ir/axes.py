"""Along which axes an operation treats every place by itself."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hf2khc.ir.expr import names_of, same, simplify
from hf2khc.ir.graph import Node
from hf2khc.ir.signatures import axis_entries
from hf2khc.ir.types import Tensor

# For one operand: its axis to the axis of the result on which the same places stand.
AxisMap = Mapping[int, int]


@dataclass(frozen=True)
class Axes:
    """How the axes of an operation's result belong to those of its operands.

    Args:
        maps: for every operand, its axes that the result has; what is done to the others mixes their places.
        summed: whether an axis of an operand that the result lacks is summed over in a product of two operands.
        whole: axes of the result along which places depend on each other.
    """

    maps: tuple[AxisMap, ...]
    summed: bool = False
    whole: frozenset[int] = field(default_factory=frozenset)


def axes_of(node: Node, operands: Sequence[Tensor | None]) -> Axes | None:
    """The axes of an `ops.*` or `layers.*` node with one result; None where it is not known what it does to them.

    Args:
        node: the operation.
        operands: types of its operands; None for those that are absent and for weights.
    """
    rule = _RULES.get(node.op)
    return rule(node, operands) if rule else None


Rule = Callable[[Node, Sequence[Tensor | None]], Axes | None]


def _broadcast(node: Node, operands: Sequence[Tensor | None]) -> Axes:
    rank = node.tensor.rank
    return Axes(tuple({} if t is None else {axis: axis + rank - t.rank for axis in range(t.rank)} for t in operands))


def _same_axes(node: Node, operands: Sequence[Tensor | None]) -> Axes:
    """Of the first operand, but for its last axis."""
    first = operands[0]
    assert first is not None
    return Axes(({axis: axis for axis in range(first.rank - 1)}, *({} for _ in operands[1:])))


def _last_axis(node: Node, operands: Sequence[Tensor | None]) -> Axes | None:
    return _same_axes(node, operands) if node.attrs.get("axis", -1) in (-1, (-1,)) else None


def _embedding(node: Node, operands: Sequence[Tensor | None]) -> Axes:
    return _same_axes(node, operands) if node.attrs.get("reverse") else _all_axes(node, operands)


def _all_axes(node: Node, operands: Sequence[Tensor | None]) -> Axes:
    first = operands[0]
    assert first is not None
    return Axes(({axis: axis for axis in range(first.rank)}, *({} for _ in operands[1:])))


def _softmax(node: Node, operands: Sequence[Tensor | None]) -> Axes:
    axis = node.attrs.get("axis", -1)
    return Axes(_all_axes(node, operands).maps, whole=frozenset({int(str(axis)) % node.tensor.rank}))


def _along(node: Node, operands: Sequence[Tensor | None]) -> Axes | None:
    """Something happens along one axis; the others stay where they are."""
    axis = node.attrs.get("axis", -1)
    if not isinstance(axis, int):
        return None
    axis %= node.tensor.rank
    return Axes(tuple({i: i for i in range(t.rank) if i != axis} if t else {} for t in operands))


def _reduced(node: Node, operands: Sequence[Tensor | None]) -> Axes | None:
    first, axis = operands[0], node.attrs.get("axis")
    if first is None or axis is None:
        return None
    gone = {a % first.rank for a in (axis if isinstance(axis, tuple) else (axis,)) if isinstance(a, int)}
    left = [i for i in range(first.rank) if i not in gone]
    if node.attrs.get("keepdims"):
        return Axes(({i: i for i in left},))
    return Axes(({i: place for place, i in enumerate(left)},))


def _expand_dims(node: Node, operands: Sequence[Tensor | None]) -> Axes:
    added = node.attrs["axis"]
    new = {a % node.tensor.rank for a in (added if isinstance(added, tuple) else (added,)) if isinstance(a, int)}
    return Axes((dict(enumerate(i for i in range(node.tensor.rank) if i not in new)),))


def _stack(node: Node, operands: Sequence[Tensor | None]) -> Axes | None:
    new = node.attrs.get("axis", 0)
    if not isinstance(new, int):
        return None
    old = [axis for axis in range(node.tensor.rank) if axis != new % node.tensor.rank]
    return Axes(tuple(dict(enumerate(old)) if t else {} for t in operands))


def _take(node: Node, operands: Sequence[Tensor | None]) -> Axes | None:
    """Axes before the one that is taken from keep their place, those behind it move by the rank of the indices."""
    x, axis = operands[0], node.attrs.get("axis")
    if x is None or not isinstance(axis, int) or len(operands) < 2:
        return None
    shift = node.tensor.rank - x.rank
    kept = {i: i if i < axis % x.rank else i + shift for i in range(x.rank) if i != axis % x.rank}
    indices = operands[1]
    return Axes((kept, {i: i + axis % x.rank for i in range(indices.rank)} if indices else {}))


def _tile(node: Node, operands: Sequence[Tensor | None]) -> Axes | None:
    """All axes, as often as they stand; the repeats are those of the last axes, and may be more than there are."""
    first, repeats = operands[0], node.attrs.get("repeats")
    if first is None or not isinstance(repeats, tuple):
        return None
    shift = node.tensor.rank - first.rank
    return Axes(({i: i + shift for i in range(first.rank)},))


def _pad(node: Node, operands: Sequence[Tensor | None]) -> Axes | None:
    first, widths = operands[0], node.attrs.get("pad_width")
    if first is None or not isinstance(widths, tuple) or len(widths) != first.rank:
        return None
    return Axes(({i: i for i, width in enumerate(widths) if width in (0, (0, 0))}, *({} for _ in operands[1:])))


def _squeeze(node: Node, operands: Sequence[Tensor | None]) -> Axes | None:
    first, gone = operands[0], node.attrs.get("axis")
    if first is None or gone is None:
        return None
    old = {a % first.rank for a in (gone if isinstance(gone, tuple) else (gone,)) if isinstance(a, int)}
    return Axes(({i: place for place, i in enumerate(i for i in range(first.rank) if i not in old)},))


def _transpose(node: Node, operands: Sequence[Tensor | None]) -> Axes:
    order = node.attrs.get("axes") or tuple(reversed(range(node.tensor.rank)))
    assert isinstance(order, tuple)
    return Axes(({int(axis) % node.tensor.rank: place for place, axis in enumerate(order)},))


def _swapaxes(node: Node, operands: Sequence[Tensor | None]) -> Axes:
    rank = node.tensor.rank
    a, b = (int(str(node.attrs[key])) % rank for key in ("axis1", "axis2"))
    return Axes(({i: {a: b, b: a}.get(i, i) for i in range(rank)},))


def _reshape(node: Node, operands: Sequence[Tensor | None]) -> Axes:
    """Axes whose size is one of the result with equally many elements before them; several may become one."""
    first = operands[0]
    assert first is not None
    shape = node.tensor.shape
    before = [product(first.shape[:i]) for i in range(first.rank + 1)]
    after = [product(shape[:i]) for i in range(node.tensor.rank + 1)]
    borders = [(i, j) for (i, x), (j, y) in itertools.product(enumerate(before), enumerate(after)) if same(x, y)]
    # All of one is all of the other, also where a quotient in a size is no whole number but for valid configs.
    borders += [] if borders[-1] == (first.rank, node.tensor.rank) else [(first.rank, node.tensor.rank)]
    found: dict[int, int] = {}
    for (i, j), (k, m) in itertools.pairwise(borders):
        # One axis of the result for a group of the operand's, or of a group the last one of free size.
        free = [axis for axis in range(j, m) if _is_free(node.tensor.shape[axis])]
        if m == j + 1 or (k == i + 1 and free):
            found |= dict.fromkeys(range(i, k), free[-1] if free else j)
        elif free and _divides(product(shape[j : free[-1] + 1]), first.shape[i]):
            # Taken apart again, and its last part put together with the axis behind it.
            found[i] = free[-1]
        elif free == [j]:
            # Several become one with a part of what is behind them: rows of heads, of which there are others now.
            found |= dict.fromkeys(range(i, i + _merged(first.shape[i:k], shape[j])), j)
    # As well as those before it, the axes behind one say where it stands.
    rest = [(i, j) for i in range(first.rank) for j in range(node.tensor.rank) if same(first.shape[i], shape[j])]
    behind = {i: j for i, j in rest if same(product(first.shape[i + 1 :]), product(shape[j + 1 :]))}
    return Axes((behind | found,))


def _merged(shape: Sequence[object], whole: object) -> int:
    """How many of the first axes, all that are of free size among them, make a part of an axis."""
    count = max((n for n, size in enumerate(shape, 1) if _is_free(size)), default=0)
    return count if count and _divides(product(shape[:count]), whole) else 0


def _divides(divisor: object, dim: object) -> bool:
    return same(simplify(f"(({dim}) // ({divisor})) * ({divisor})"), dim)


def _is_free(dim: object) -> bool:
    return any(not name.startswith("config.") for name in names_of(dim))


def slides(node: Node, rank: int, axis: int) -> bool:
    """Whether a convolution moves along an axis of what it is given one by one, without padding.

    Args:
        node: the convolution.
        rank: of what it is given.
        axis: of that, from the front.
    """
    last = node.attrs.get("data_format", "channels_last") == "channels_last"
    spatial = range(1, rank - 1) if last else range(2, rank)
    strides = node.attrs.get("strides", 1)
    steps = strides if isinstance(strides, tuple) else (strides,) * len(spatial)
    return axis in spatial and steps[axis - spatial[0]] == 1 and node.attrs.get("padding", "valid") == "valid"


def product(dims: Sequence[object]) -> object:
    """How many entries there are along several axes."""
    return simplify(" * ".join(f"({dim})" for dim in dims)) if dims else 1


def _get_item(node: Node, operands: Sequence[Tensor | None]) -> Axes:
    first, key = operands[0], node.attrs["key"]
    assert first is not None
    found: dict[int, int] = {}
    axis = place = 0
    for entry in axis_entries(key, first.rank):
        if entry == "newaxis":
            place += 1
            continue
        if isinstance(entry, tuple):
            if _is_whole(entry, first.shape[axis]):
                found[axis] = place
            place += 1
        axis += 1
    return Axes((found,))


def _is_whole(entry: tuple, size: object) -> bool:
    _, start, stop, step = entry
    return start in (None, 0) and step in (None, 1) and (stop is None or same(stop, size))


def _einsum(subscripts: str, operands: Sequence[Tensor | None]) -> Axes:
    given, _, result = subscripts.replace(" ", "").partition("->")
    maps = ({i: result.index(letter) for i, letter in enumerate(part) if letter in result} for part in given.split(","))
    return Axes(tuple(maps), summed=len(operands) == 2)


def _einsum_dense(node: Node, operands: Sequence[Tensor | None]) -> Axes | None:
    equation = str(node.attrs["equation"])
    if "." in equation:
        return _same_axes(node, operands)
    found = _einsum(equation, operands)
    # The kernel has no places.
    return Axes((found.maps[0], *({} for _ in operands[1:])))


def _matmul(node: Node, operands: Sequence[Tensor | None]) -> Axes | None:
    a, b = operands
    rank = node.tensor.rank
    if a is None or b is None or min(a.rank, b.rank) < 2:
        return None
    first = {axis: axis + rank - a.rank for axis in range(a.rank - 1)}
    second = {axis: axis + rank - b.rank for axis in range(b.rank) if axis != b.rank - 2}
    return Axes((first, second), summed=True)


def _of_matrices(node: Node, operands: Sequence[Tensor | None]) -> Axes:
    """The axes before the last two, which are those of a matrix."""
    return Axes(tuple({i: i for i in range(t.rank - 2)} if t else {} for t in operands))


def _attention(node: Node, operands: Sequence[Tensor | None]) -> Axes:
    """Batch, queries, heads and width from the query; the keys are summed over."""
    maps: list[AxisMap] = [{0: 0, 1: 1, 2: 2}, {0: 0}, {0: 0, 3: 3}]
    # A bias and a mask are (batch, heads, queries, keys).
    maps += [{0: 0, 1: 2, 2: 1} for _ in operands[3:]]
    return Axes(tuple(maps), summed=True)


_ELEMENTWISE = """
add subtract multiply divide true_divide floor_divide mod power maximum minimum where logical_and logical_or logical_not
logical_xor equal not_equal less less_equal greater greater_equal cast relu relu6 gelu silu swish sigmoid tanh exp expm1
log log1p sqrt rsqrt square abs absolute negative sin cos erf softplus softsign clip sign floor ceil round reciprocal
leaky_relu elu selu hard_sigmoid hard_silu hard_tanh isfinite isnan isinf nan_to_num log_sigmoid stop_gradient celu
bitwise_and bitwise_or bitwise_xor bitwise_not invert arctan arctan2 trunc threshold
""".split()  # noqa: SIM905
_RULES: dict[str, Rule] = {f"ops.{name}": _broadcast for name in _ELEMENTWISE}
_RULES |= dict.fromkeys(("ops.concatenate", "ops.repeat", "ops.cumsum", "ops.cumprod", "ops.flip"), _along)
_RULES |= dict.fromkeys(("ops.sort", "ops.argsort", "ops.roll", "ops.take_along_axis"), _along)
_RULES |= dict.fromkeys(("ops.sum", "ops.mean", "ops.max", "ops.min", "ops.any", "ops.all", "ops.prod"), _reduced)
_RULES |= dict.fromkeys(("ops.var", "ops.std", "ops.argmax", "ops.argmin", "ops.logsumexp"), _reduced)
_RULES |= dict.fromkeys(("ops.softmax", "ops.log_softmax", "layers.Softmax"), _softmax)
_NORMS = ("layers.LayerNormalization", "layers.RMSNormalization", "ops.layer_normalization", "ops.rms_normalization")
_RULES |= dict.fromkeys((*_NORMS, "ops.normalize"), _last_axis)
_RULES |= dict.fromkeys(("layers.Embedding", "layers.Dropout", "layers.Activation", "ops.one_hot"), _all_axes)

_RULES |= dict.fromkeys(("ops.zeros_like", "ops.ones_like", "ops.full_like"), _all_axes)
_RULES |= {
    "layers.Dense": _same_axes,
    "layers.RotaryEmbedding": _all_axes,
    "layers.ReversibleEmbedding": _embedding,
    "ops.expand_dims": _expand_dims,
    "ops.squeeze": _squeeze,
    "ops.stack": _stack,
    "ops.take": _take,
    "ops.pad": _pad,
    "ops.tile": _tile,
    "ops.transpose": _transpose,
    "ops.swapaxes": _swapaxes,
    "ops.reshape": _reshape,
    "ops.get_item": _get_item,
    "ops.broadcast_to": _broadcast,
    "ops.einsum": lambda node, operands: _einsum(str(node.attrs["subscripts"]), operands),
    "layers.EinsumDense": _einsum_dense,
    "ops.matmul": _matmul,
    "ops.tril": _of_matrices,
    "ops.triu": _of_matrices,
    "ops.solve_triangular": _of_matrices,
    "ops.dot_product_attention": _attention,
}
