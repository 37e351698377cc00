"""A constant of one number is a number, and so is an array that is full of one."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.signatures import slot_names
from hf2khc.passes.core.constants import map_constants
from hf2khc.rewrite.build import trimmed
from hf2khc.rewrite.guards import same_shape

# Ops that take a number in the place of either value.
_BINARY = frozenset(
    f"ops.{name}"
    for name in (
        "add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "where",
        "equal", "not_equal", "less", "less_equal", "greater", "greater_equal",
    )
)  # fmt: skip


def inline_numbers(program: Program) -> Program:
    """Write constants of one number, and values full of one, as numbers where they are used.

    transformers keeps what embeddings are scaled with in a buffer; what the config determines can be found of a number.
    It bounds values by others of their shape (`torch.min(x, torch.full_like(x, 31))`), where a number does.

    Before:

        graph Scaled(%x: f32[batch, 16]) {
          const @embed_scale: f32[]
          %y: f32[batch, 16] = ops.multiply(%x, @embed_scale)
          return %y
        }

        entry Scaled
        constant @embed_scale: f32[] = (4.0,)

    After:

        graph Scaled(%x: f32[batch, 16]) {
          %y: f32[batch, 16] = ops.multiply(%x, x2=4.0)
          return %y
        }

        entry Scaled
    """
    return map_constants(program, _inlined)


def _inlined(graph: Graph, values: Mapping[str, np.ndarray]) -> Graph:
    numbers = {name: value.item() for name, value in values.items() if value.ndim == 0 and value.dtype.kind in "fiu"}
    full = ((node.name, node.attrs["fill_value"]) for node in graph.of("ops.full_like"))
    numbers |= {name: number for name, number in full if type(number) in (int, float)}
    nodes = [_with_numbers(graph, node, numbers) for node in graph]
    made = [node for node, old in zip(nodes, graph, strict=True) if node is not old]
    return graph.rewired(made, {}) if made else graph


def _with_numbers(graph: Graph, node: Node, numbers: Mapping[str, float]) -> Node:
    """A node with numbers in the place of constants; one value stays, of the type that the numbers have."""
    given = [name for name in node.used if name in numbers] if node.op in _BINARY else []
    if not given:
        return node
    others = {graph[name].tensor.dtype for name in node.used if name not in numbers and _is_value(node, name)}
    if others != {graph[name].tensor.dtype for name in given}:
        return node
    if any(graph[name].tensor.rank for name in given) and not any(
        same_shape(graph, name, node.name) for name in node.used if name not in numbers
    ):
        return node
    slots = zip(slot_names(node.op), node.operands, strict=False)
    attrs: dict[str, object] = {slot: numbers[name] for slot, name in slots if name is not None and name in numbers}
    operands = trimmed(None if name in numbers else name for name in node.operands)
    return replace(node, operands=operands, attrs={**attrs, **node.attrs}, origin=node.origin | {"inline_numbers"})


def _is_value(node: Node, name: str) -> bool:
    """Whether an operand is one of the two values, no condition."""
    return node.op != "ops.where" or node.operands[0] != name
