"""Which weights of its own a layer multiplies with: read off its source, as nothing else of it says so."""

import ast
import inspect
import textwrap
from typing import Any

_PRODUCTS = frozenset(("matmul", "einsum", "tensordot", "dot", "conv", "conv_transpose", "depthwise_conv"))
# Operations that only arrange what they are given.
_ARRANGING = frozenset((
    "transpose", "reshape", "expand_dims", "squeeze", "swapaxes", "cast", "convert_to_tensor", "concatenate", "stack",
    "take", "repeat", "tile", "broadcast_to", "slice",
))  # fmt: skip


def factors(layer: Any) -> set[str]:
    """The attributes that hold a factor of a product in a layer's own code; a value computed of one is none."""
    reader = _Reader()
    reader.visit(ast.parse(textwrap.dedent(inspect.getsource(type(layer)))))
    return reader.found


class _Reader(ast.NodeVisitor):
    """Reads a class from top to bottom: what its variables hold of attributes, and what its products are of."""

    def __init__(self) -> None:
        self.held: dict[str, set[str]] = {}
        self.found: set[str] = set()

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.held[target.id] = self._attributes(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        if _operation(node) in _PRODUCTS:
            self.found |= set().union(*map(self._attributes, node.args))

    def _attributes(self, node: ast.expr) -> set[str]:
        """The attributes of the layer that an expression holds, arranged or not."""
        if isinstance(node, ast.Name):
            return self.held.get(node.id, set())
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            return {node.attr}
        if isinstance(node, ast.Subscript):
            return self._attributes(node.value)
        if isinstance(node, ast.List | ast.Tuple):
            return set().union(*map(self._attributes, node.elts))
        if isinstance(node, ast.Call) and _operation(node) in _ARRANGING:
            return set().union(*map(self._attributes, node.args))
        return set()


def _operation(node: ast.Call) -> str:
    """The name of an operation of Keras; empty for another call."""
    function = node.func
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "ops":
        return function.attr
    return ""
