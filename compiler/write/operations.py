"""From one operation to the Python expression for it."""

import ast
from collections.abc import Sequence, Set
from dataclasses import dataclass

from hf2khc.diagnostics import fail
from hf2khc.ir.expr import Expr, names_of
from hf2khc.ir.graph import Node
from hf2khc.ir.signatures import LIST_OPS
from hf2khc.ir.types import Tensor
from hf2khc.write.layer_facts import is_required, op_parameters, takes_any_number
from hf2khc.write.plan import START
from hf2khc.write.scope import Scope

ATOM, NEGATIVE, PRODUCT, SUM, COMPARISON, LOOSEST = 3, 2, 1, 0, -1, -2
_OPERATORS = {
    "ops.add": ("+", SUM),
    "ops.subtract": ("-", SUM),
    "ops.multiply": ("*", PRODUCT),
    "ops.divide": ("/", PRODUCT),
    "ops.less": ("<", COMPARISON),
    "ops.less_equal": ("<=", COMPARISON),
    "ops.greater": (">", COMPARISON),
    "ops.greater_equal": (">=", COMPARISON),
}
# Operations whose operands are written as one list.
LISTS = tuple(op for op in LIST_OPS if op not in ("ops.einsum", "ops.meshgrid"))
# Arguments that are written even where they equal the default.
_ALWAYS = ("dtype", "approximate")
# Required arguments that are nevertheless written with their names.
_NAMED = ("axis", "repeats", "pad_width")


@dataclass(frozen=True)
class Text:
    """An expression and how tightly it binds."""

    text: str
    binds: int = ATOM

    def inside(self, binds: int) -> str:
        """The expression as an operand of something that binds as `binds`."""
        return self.text if self.binds >= binds else f"({self.text})"


def operation(node: Node, operands: Sequence[Text | None], scope: Scope, plain: bool) -> Text:
    """The expression for an `ops.*` node.

    Args:
        node: the operation.
        operands: the expressions of its operands.
        scope: spells attributes.
        plain: whether Python's operators do on the operands what `keras.ops` does.
    """
    if node.op == "ops.get_item" and operands[0] is not None:
        return Text(f"{operands[0].inside(ATOM)}[{_key(node.attrs['key'], scope)}]")
    if node.op == "ops.negative" and plain and operands[0] is not None:
        return Text(f"-{operands[0].inside(NEGATIVE)}", NEGATIVE)
    if node.op in _OPERATORS and plain:
        return _infix(node, operands, scope)
    name = node.op.removeprefix("ops.")
    return Text(f"ops.{name}({', '.join(_arguments(node, operands, scope))})")


def _infix(node: Node, operands: Sequence[Text | None], scope: Scope) -> Text:
    symbol, binds = _OPERATORS[node.op]
    pairs = zip(("x1", "x2"), (*operands, None), strict=False)
    left, right = (_number(node.attrs[k], scope) if operand is None else operand for k, operand in pairs)
    # Python reads a < b < c as two comparisons.
    associates = binds if binds != COMPARISON else binds + 1
    return Text(f"{left.inside(associates)} {symbol} {right.inside(binds + 1)}", binds)


def _number(value, scope: Scope) -> Text:
    text = scope.value(value)
    if not isinstance(value, Expr):
        return Text(text, NEGATIVE if text.startswith("-") else ATOM)
    tree = ast.parse(text, mode="eval").body
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Pow):
        return Text(text, NEGATIVE)
    return Text(text, ATOM if isinstance(tree, ast.Name | ast.Attribute | ast.Call | ast.Constant) else LOOSEST)


def _arguments(node: Node, operands: Sequence[Text | None], scope: Scope) -> list[str]:
    texts = ["None" if o is None else o.text for o in operands]
    if node.op == "ops.einsum":
        return [scope.value(node.attrs["subscripts"]), *texts]
    if node.op == "ops.arange" and set(node.attrs) - {"dtype"} <= {"start", "stop", "step"}:
        texts = _arange(node, texts, scope)
        return [*texts, f"dtype={attribute(node, 'dtype', scope)}"] if node.attrs.get("dtype") else texts
    if takes_any_number(node.op):
        return [*texts, *(f"{key}={attribute(node, key, scope)}" for key in node.attrs)]
    slots = [f"[{', '.join(texts)}]"] if node.op in LISTS else texts
    parameters = op_parameters(node.op)
    unknown = [key for key in node.attrs if key not in dict(parameters)]
    if unknown:
        raise fail(
            "op-arguments", f"%{node.name}: {node.op} has no argument {unknown[0]}", location=str(node.loc or "")
        )
    if len(slots) > len(parameters):
        raise fail(
            "op-arguments", f"%{node.name}: {node.op} takes no {len(slots)} operands", location=str(node.loc or "")
        )
    written, contiguous = [], True
    for (name, default), slot in zip(parameters, [*slots, *["None"] * len(parameters)], strict=False):
        if name in node.attrs:
            value = node.attrs[name]
            if not is_required(default) and name not in _ALWAYS and type(value) is type(default) and value == default:
                contiguous = False
                continue
            text = attribute(node, name, scope)
            positional = contiguous and name not in _NAMED and (is_required(default) or name in ("x1", "x2"))
            contiguous = positional
        elif slot == "None":
            contiguous = False
            continue
        else:
            text, positional = slot, contiguous
        written.append(text if positional else f"{name}={text}")
    return written


def _arange(node: Node, texts: list[str], scope: Scope) -> list[str]:
    """The bounds of an `arange`, a start of 0 left out."""
    bounds = {key: scope.value(node.attrs[key]) for key in ("start", "stop", "step") if node.attrs.get(key) is not None}
    bounds |= {key: text for key, text in zip(("start", "stop", "step"), texts, strict=False) if text != "None"}
    if "stop" not in bounds:
        return [bounds["start"]]
    if bounds.get("step", "1") != "1":
        return [bounds.get("start", "0"), bounds["stop"], bounds["step"]]
    return [bounds["stop"]] if bounds.get("start", "0") == "0" else [bounds["start"], bounds["stop"]]


def attribute(node: Node, name: str, scope: Scope) -> str:
    """The text of one attribute of an operation."""
    value = node.attrs[name]
    if name == "dtype":
        return f'"{"int32" if value == "int64" else value}"'
    if name == "newshape" and isinstance(value, tuple):
        return new_shape(value, scope)
    return scope.value(value)


def new_shape(dims: tuple, scope: Scope) -> str:
    """The target of a reshape; the last size known only at run time is left to Keras as -1.

    Of a tensor without elements any size would do: there it is written out.
    """
    unknown = [i for i, dim in enumerate(dims) if isinstance(dim, Expr) and any(map(scope.is_size, dim.names))]
    if unknown and -1 not in dims and 0 not in dims:
        dims = tuple(-1 if i == unknown[-1] else dim for i, dim in enumerate(dims))
    return scope.value(dims)


def _key(key, scope: Scope) -> str:
    is_one = not isinstance(key, tuple) or (bool(key) and key[0] == "slice")
    items = [_item(item, scope) for item in ((key,) if is_one else key)]
    # The tensors of a functional model take no slice that stands alone.
    return ", ".join([*items, "..."] if len(items) == 1 and ":" in items[0] and not scope.owner else items)


def _item(item, scope: Scope) -> str:
    if isinstance(item, str):
        return {"ellipsis": "...", "newaxis": "None"}[item]
    if isinstance(item, tuple):
        return _slice(item, scope)
    return scope.value(item)


def _slice(item: tuple, scope: Scope) -> str:
    start, stop, step = (None if part is None else scope.value(part) for part in (*item[1:], None, None, None)[:3])
    start = None if start == "0" else start
    text = f"{start or ''}:{stop or ''}"
    return text if step in (None, "1") else f"{text}:{step}"


def plain_operands(node: Node, types: Sequence[Tensor], pinned: Set[bool], scope: Scope) -> bool:
    """Whether Python's operators do on the operands what `keras.ops` does, on every backend and dtype policy.

    TensorFlow does not mix dtypes, and under a mixed policy a value that is float32 for good meets one that is not.
    """
    if node.op not in _OPERATORS and node.op != "ops.negative":
        return False
    if not types or len({t.dtype for t in types}) != 1 or len(pinned) != 1 or types[0].dtype == "bool":
        return False
    numbers = [node.attrs[k] for k in ("x1", "x2") if k in node.attrs]
    # Where the inputs start may be a tensor, of integers as the positions are that it is added to.
    if any(map(scope.is_size, names_of(tuple(numbers)) - {START})):
        return False
    if types[0].is_floating:
        return True
    integers = (isinstance(n, int) and not isinstance(n, bool) or names_of(n) == {START} for n in numbers)
    return node.op != "ops.divide" and all(integers)
