"""Simplify what a trace spells out: equal computations once, chains of new axes as one index."""

import importlib.resources
from collections.abc import Collection, Sequence
from dataclasses import replace

from hf2khc.ir.expr import same
from hf2khc.ir.expr import simplify as simplify_size
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.signatures import WHOLE, only_entry
from hf2khc.ir.types import same_type
from hf2khc.rewrite.apply import apply_rules, apply_to_shared
from hf2khc.rewrite.load import load_rules

RULES = load_rules(importlib.resources.files(__package__) / "simplify.rules")
TABLES = load_rules(importlib.resources.files(__package__) / "position_tables.rules")


def simplify(program: Program) -> Program:
    """Apply the rules of `simplify.rules`, compute equal values once, index new axes in one step, and read parts.

    What is put together and cut where it was joined is read from the parts, and zeros are not computed with.

    Before:

        graph Mask(%mask: bool[batch, seq]) {
          %a: i64[seq] = ops.arange(start=0, stop=seq, dtype="int64")
          %b: i64[seq] = ops.arange(start=0, stop=seq, dtype="int64")
          %c: i64[1, seq] = ops.expand_dims(%a, axis=0)
          %d: i64[1, seq, 1] = ops.expand_dims(%c, axis=2)
          %e: i64[1, seq] = ops.expand_dims(%b, axis=0)
          %f: i64[1, 1, seq] = ops.expand_dims(%e, axis=1)
          %y: bool[1, seq, seq] = ops.less_equal(%f, %d)
          return %y
        }

        entry Mask

    After:

        graph Mask(%mask: bool[batch, seq]) {
          %a: i64[seq] = ops.arange(start=0, stop=seq, dtype="int64")
          %d: i64[1, seq, 1] = ops.get_item(%a, key=("newaxis", ("slice", none, none, none), "newaxis"))
          %f: i64[1, 1, seq] = ops.get_item(%a, key=("newaxis", "newaxis", ("slice", none, none, none)))
          %y: bool[1, seq, seq] = ops.less_equal(%f, %d)
          return %y
        }

        entry Mask
    """
    return program.map(lambda graph: _new_axes(_parts(_without_zeros(once(_by_rules(graph))))))


def _by_rules(graph: Graph) -> Graph:
    return apply_rules(apply_to_shared(graph, TABLES), RULES)


def _without_zeros(graph: Graph) -> Graph:
    """A graph without products and sums of zeros: loops over time begin with a state that nothing was added to yet."""
    zeros: set[str] = set()
    new: list[Node] = []
    redirect: dict[str, str] = {}
    for node in graph:
        used = [redirect.get(operand, operand) for operand in node.used]
        if node.op == "ops.zeros":
            zeros.add(node.name)
        elif node.op == "ops.matmul" and zeros.intersection(used):
            zeros.add(node.name)
            attrs = {"shape": node.tensor.shape, "dtype": node.tensor.dtype}
            new.append(replace(node, op="ops.zeros", operands=(), attrs=attrs))
        elif len(used) == 2 and (rest := _rest(node, used, zeros)) and same_type(graph[rest].type, node.type):
            redirect[node.name] = rest
    return graph.rewired(new, redirect) if new or redirect else graph


def _rest(node: Node, used: Sequence[str], zeros: Collection[str]) -> str | None:
    """The operand to which zeros are added, or from which they are taken; None for another operation."""
    if node.op in ("ops.add", "ops.subtract") and used[1] in zeros:
        return used[0]
    return used[1] if node.op == "ops.add" and used[0] in zeros else None


def once(graph: Graph) -> Graph:
    """Equal operations on equal operands are one; layers are not: two dropouts are two."""
    seen: dict[tuple, str] = {}
    redirect: dict[str, str] = {}
    for node in graph:
        if node.level != "ops" and node.op != "item":
            continue
        operands = tuple(redirect.get(o, o) if o else o for o in node.operands)
        key = (node.op, operands, tuple(sorted((k, repr(v)) for k, v in node.attrs.items())), str(node.type))
        if seen.setdefault(key, node.name) != node.name:
            redirect[node.name] = seen[key]
    return graph.rewired(redirect=redirect) if redirect else graph


def _parts(graph: Graph) -> Graph:
    """Slices that begin and end where a concatenation joins its parts, and entries of a stack, as those parts."""
    new: list[Node] = []
    redirect: dict[str, str] = {}
    for node in graph.of("ops.get_item"):
        joined = graph[node.used[0]]
        parts = _PARTS[joined.op](graph, node, joined) if joined.op in _PARTS else []
        if len(parts) == 1:
            redirect[node.name] = parts[0]
        elif parts:
            new.append(replace(joined, name=node.name, operands=tuple(parts), type=node.type, loc=node.loc))
    return graph.rewired(new, redirect) if new or redirect else graph


def _cut(graph: Graph, node: Node, joined: Node) -> list[str]:
    """The operands of a concatenation that a slice takes whole; none where it takes a part of one."""
    axis = int(joined.attrs["axis"]) % joined.tensor.rank  # type: ignore[call-overload]
    taken = only_entry(node.attrs["key"], axis, joined.tensor.rank)
    if not isinstance(taken, tuple) or taken == WHOLE or taken[3] not in (None, 1):
        return []
    edges: list = [0]
    for part in joined.used:
        edges.append(simplify_size(f"({edges[-1]}) + ({graph[part].tensor.shape[axis]})"))
    start, stop = (edges[-1 if end else 0] if bound is None else bound for end, bound in enumerate(taken[1:3]))
    first = next((i for i, edge in enumerate(edges) if same(edge, start)), len(edges))
    last = next((i for i, edge in enumerate(edges) if same(edge, stop)), 0)
    return list(joined.used[first:last])


def _entry(graph: Graph, node: Node, stack: Node) -> list[str]:
    """The operand of a stack that an index takes whole."""
    rank = stack.tensor.rank
    axis = int(stack.attrs.get("axis", 0)) % rank  # type: ignore[call-overload]
    taken = only_entry(node.attrs["key"], axis, rank)
    return [stack.used[taken]] if isinstance(taken, int) else []


_PARTS = {"ops.concatenate": _cut, "ops.stack": _entry}


def _new_axes(graph: Graph) -> Graph:
    """Every chain of two or more `expand_dims` as one index."""
    new = []
    for node in graph.of("ops.expand_dims"):
        base, axes = _chain(graph, node)
        if len(axes) < 2:
            continue
        key = tuple("newaxis" if axis in axes else WHOLE for axis in range(node.tensor.rank))
        new.append(Node(node.name, "ops.get_item", (base,), {"key": key}, node.type, node.loc, node.origin))
    return graph.rewired(new) if new else graph


def _chain(graph: Graph, node: Node) -> tuple[str, set[int]]:
    """Where a chain of `expand_dims` begins, and which axes of its result it made."""
    axes: set[int] = set()
    rank = node.tensor.rank
    made = list(range(rank))  # axes of the result still to be explained, by position in the current node
    while node.op == "ops.expand_dims" and isinstance(node.attrs["axis"], int):
        axis = node.attrs["axis"] % node.tensor.rank
        axes.add(made.pop(axis))
        node = graph[node.operands[0]]  # type: ignore[index]
    return node.name, axes
