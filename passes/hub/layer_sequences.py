"""Consecutive layers of a list, of whatever kind: what loops over several kinds of layers are made of."""

import re
from collections.abc import Iterator

from hf2khc.ir.graph import Graph, Node

Sequence = tuple[Node, ...]


def mixed_sequences(graph: Graph) -> Iterator[Sequence]:
    """Chains of calls on `layers.0`, `layers.1` ... in which kinds alternate: one comes back after another.

    Each call has one result, which the next one alone takes. Kinds that follow one another for good (dense layers
    before sparse ones) are no such chain: those are loops of their own.
    """
    seen: set[str] = set()
    for call in graph.of("call"):
        if call.name in seen:
            continue
        calls = [call]
        while (following := _following(graph, calls[-1])) is not None:
            calls.append(following)
        seen.update(c.name for c in calls)
        if _alternates([str(c.attrs["graph"]) for c in calls]):
            yield tuple(calls)


def is_aligned(calls: Sequence) -> bool:
    """Whether all calls take the result of the one before first, and then the same."""
    return all(
        b.operands[0] == a.name and b.operands[1:] == a.operands[1:] for a, b in zip(calls, calls[1:], strict=False)
    )


def list_of(call: Node) -> str:
    """The path of the list that the layer of a call is in; empty where it is in none below the caller."""
    path, _, number = str(call.attrs["path"]).rpartition(".")
    return path if number.isdigit() else ""


def _following(graph: Graph, call: Node) -> Node | None:
    users = graph.users(call.name)
    if isinstance(call.type, tuple) or graph.uses(call.name) != 1 or len(users) != 1 or users[0].op != "call":
        return None
    return users[0] if are_neighbours(call, users[0]) else None


def are_neighbours(a: Node, b: Node) -> bool:
    """Whether two calls are of layers with consecutive numbers in one list."""
    first, second = (re.fullmatch(r"(.*\.)?(\d+)", str(node.attrs["path"])) for node in (a, b))
    return bool(first and second and first[1] == second[1] and int(first[2]) + 1 == int(second[2]))


def _alternates(names: list[str]) -> bool:
    runs = [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]
    return len(set(runs)) < len(runs)
