"""How operations look above a transpose of their operands."""

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from hf2khc.ir.expr import Expr, same
from hf2khc.ir.graph import Node
from hf2khc.ir.signatures import axis_entries
from hf2khc.ir.types import Tensor, Type, tensors

Permutation = tuple[int, ...]
Shape = tuple[int | Expr, ...]
# Attributes, type and the permutation still due on the result.
Moved = tuple[Mapping[str, object], Type, Permutation | None]

_POINTWISE = frozenset({
    "ops.abs", "ops.add", "ops.arctan", "ops.cast", "ops.ceil", "ops.clip", "ops.cos", "ops.divide", "ops.elu",
    "ops.equal", "ops.erf", "ops.exp", "ops.expm1", "ops.floor", "ops.floor_divide", "ops.gelu", "ops.greater",
    "ops.greater_equal", "ops.hard_sigmoid", "ops.hard_silu", "ops.isfinite", "ops.leaky_relu", "ops.less",
    "ops.less_equal", "ops.log", "ops.log1p", "ops.logical_and", "ops.logical_not", "ops.logical_or",
    "ops.maximum", "ops.minimum", "ops.mod", "ops.multiply", "ops.negative", "ops.not_equal", "ops.power",
    "ops.reciprocal", "ops.relu", "ops.relu6", "ops.round", "ops.rsqrt", "ops.selu", "ops.sigmoid", "ops.sign",
    "ops.silu", "ops.sin", "ops.softplus", "ops.sqrt", "ops.square", "ops.subtract", "ops.tan", "ops.tanh",
    "ops.where", "layers.Dropout",
})  # fmt: skip
_LAST_AXIS = frozenset({"layers.Dense", "layers.LayerNormalization", "layers.RMSNormalization"})
# The axis where none is given; `None` stands for all of them at once.
_ONE_AXIS = MappingProxyType(
    dict.fromkeys(
        (
            "ops.concatenate",
            "ops.softmax",
            "ops.log_softmax",
            "ops.glu",
            "layers.BatchNormalization",
            "layers.GroupNormalization",
        ),
        -1,
    )
    | dict.fromkeys(("ops.repeat", "ops.flip", "ops.cumsum"))
)
_REDUCTIONS = frozenset({"ops.mean", "ops.sum", "ops.max", "ops.min", "ops.var", "ops.std"})
_LAST_AXIS_OPS = frozenset({"ops.rms_normalization", "ops.layer_normalization"})


def moved(node: Node, permutation: Permutation, before: Tensor) -> Moved | None:
    """`node` on operands from before `permutation`; `None` where the operation does care about the layout.

    Args:
        before: type of the first operand, or of the first of its parts, after its permutation.
    """
    if node.op == "ops.reshape":
        return _merged_axes(node, permutation, before) or _divided_axis(node, permutation, before)
    rule = _RULES.get(node.op)
    return rule(node, permutation) if rule else None


def _merged_axes(node: Node, permutation: Permutation, before: Tensor) -> Moved | None:
    """A reshape that merges axes that are neighbours before the permutation, too: (b, c, h, w) to (b, c, h * w)."""
    old, new = before.shape, node.tensor.shape
    gone, first = len(old) - len(new), _one_of_several(new, old)
    if first is None:
        return None
    run = permutation[first : first + gone + 1]
    if list(run) != list(range(run[0], run[0] + gone + 1)):
        return None
    # The merged axes are one; those behind them move up.
    left = tuple(p - gone if p > run[0] else p for i, p in enumerate(permutation) if not first < i <= first + gone)
    type_ = untransposed(node.tensor, left)
    return {"newshape": type_.shape}, type_, None if left == tuple(range(len(left))) else left


def _divided_axis(node: Node, permutation: Permutation, before: Tensor) -> Moved | None:
    """A reshape that divides one axis, which it does before the permutation as well: (b, c, n) to (b, c, h, w)."""
    old, new = before.shape, node.tensor.shape
    more, first = len(new) - len(old), _one_of_several(old, new)
    if first is None:
        return None
    divided = permutation[first]
    left = [p + more if p > divided else p for p in permutation]
    left[first : first + 1] = range(divided, divided + more + 1)
    type_ = untransposed(node.tensor, tuple(left))
    return {"newshape": type_.shape}, type_, None if left == list(range(len(left))) else tuple(left)


def _one_of_several(fewer: Shape, more: Shape) -> int | None:
    """The axis of one shape that is several neighbours in the other, all others being the same."""
    extra = len(more) - len(fewer)
    if extra < 1:
        return None
    for axis in range(len(fewer)):
        if all(map(same, fewer[:axis], more[:axis])) and all(map(same, fewer[axis + 1 :], more[axis + extra + 1 :])):
            return axis
    return None


def untransposed(type_: Tensor, permutation: Permutation) -> Tensor:
    """The type of a value whose transpose has `type_`."""
    shape: list = [None] * len(permutation)
    for axis, source in enumerate(permutation):
        shape[source] = type_.shape[axis]
    return Tensor(type_.dtype, tuple(shape))


def _pointwise(node: Node, permutation: Permutation) -> Moved | None:
    if node.tensor.rank != len(permutation):
        return None
    return node.attrs, untransposed(node.tensor, permutation), permutation


def _last_axis(node: Node, permutation: Permutation) -> Moved | None:
    if permutation[-1] != len(permutation) - 1 or node.attrs.get("axis", -1) not in (-1, len(permutation) - 1):
        return None
    return _pointwise(node, permutation)


def _one_axis(node: Node, permutation: Permutation) -> Moved | None:
    axis = node.attrs.get("axis", _ONE_AXIS[node.op])
    if not isinstance(axis, int) or node.tensor.rank != len(permutation):
        return None
    return {**node.attrs, "axis": permutation[axis]}, untransposed(node.tensor, permutation), permutation


def _channels(node: Node, permutation: Permutation) -> Moved | None:
    """A layer of one axis; the last one goes by its default."""
    result = _one_axis(node, permutation)
    if result is None:
        return None
    attrs, type_, left = result
    return ({**attrs, "axis": -1} if attrs["axis"] == len(permutation) - 1 else attrs), type_, left


def _split(node: Node, permutation: Permutation) -> Moved | None:
    axis = node.attrs.get("axis", 0)
    if not isinstance(axis, int):
        return None
    types = tuple(untransposed(part, permutation) for part in tensors(node.type))
    return {**node.attrs, "axis": permutation[axis]}, types, permutation


def _reduction(node: Node, permutation: Permutation) -> Moved | None:
    """Axes of which one entry is left, or none: then the others move up."""
    axis = node.attrs.get("axis")
    if axis is None:
        return None
    axes = axis if isinstance(axis, tuple) else (axis,)
    new = tuple(permutation[a] for a in axes)
    attrs = {**node.attrs, "axis": new if isinstance(axis, tuple) else new[0]}
    left = permutation if node.attrs.get("keepdims") else _without(permutation, new)
    return attrs, untransposed(node.tensor, left), None if left == tuple(range(len(left))) else left


def _without(permutation: Permutation, gone: Collection[int]) -> Permutation:
    """A permutation of the axes that are left."""
    left = sorted(set(permutation) - set(gone))
    return tuple(left.index(axis) for axis in permutation if axis not in gone)


def _pad(node: Node, permutation: Permutation) -> Moved | None:
    """Each pair of widths stays with its axis."""
    widths = node.attrs["pad_width"]
    if not isinstance(widths, tuple) or len(widths) != len(permutation):
        return None
    new: list = [None] * len(permutation)
    for axis, pair in zip(permutation, widths, strict=True):
        new[axis] = pair
    return {**node.attrs, "pad_width": tuple(new)}, untransposed(node.tensor, permutation), permutation


def _broadcast(node: Node, permutation: Permutation) -> Moved | None:
    if len(node.attrs["shape"]) != len(permutation):  # type: ignore[arg-type]
        return None
    type_ = untransposed(node.tensor, permutation)
    return {"shape": type_.shape}, type_, permutation


def _expand_dims(node: Node, permutation: Permutation) -> Moved | None:
    """A new axis, where there is none or where several values are stacked."""
    axis = node.attrs.get("axis", 0)
    if not isinstance(axis, int):
        return None
    axis %= node.tensor.rank
    base = permutation[axis] if axis < len(permutation) else len(permutation)
    left = [p + (p >= base) for p in permutation]
    left.insert(axis, base)
    return {"axis": base}, untransposed(node.tensor, tuple(left)), tuple(left)


def _get_item(node: Node, permutation: Permutation) -> Moved | None:
    """Slices alone: each stays with its axis."""
    rank = len(permutation)
    key = node.attrs["key"]
    assert isinstance(key, tuple)
    if any(part != "ellipsis" and not isinstance(part, tuple) for part in key) or node.tensor.rank != rank:
        return None
    slices: list = [None] * rank
    for axis, part in enumerate(axis_entries(key, rank)):
        slices[permutation[axis]] = part
    return {"key": _short(slices)}, untransposed(node.tensor, permutation), permutation


def _short(slices: list) -> tuple:
    whole = ("slice", None, None, None)
    if all(part == whole for part in slices[:-1]):
        return ("ellipsis", slices[-1])
    while slices and slices[-1] == whole:
        slices.pop()
    return tuple(slices)


_RULES: Mapping[str, Callable[[Node, Permutation], Moved | None]] = MappingProxyType(
    {
        **dict.fromkeys(_POINTWISE, _pointwise),
        **dict.fromkeys(_LAST_AXIS | _LAST_AXIS_OPS, _last_axis),
        **dict.fromkeys(_ONE_AXIS, _one_axis),
        **dict.fromkeys(_REDUCTIONS, _reduction),
        "layers.BatchNormalization": _channels,
        "layers.GroupNormalization": _channels,
        "ops.broadcast_to": _broadcast,
        "ops.expand_dims": _expand_dims,
        "ops.get_item": _get_item,
        "ops.pad": _pad,
        "ops.stack": _expand_dims,
        "ops.split": _split,
        "ops.squeeze": _reduction,
        "item": _pointwise,
    }
)
