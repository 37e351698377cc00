"""Roll calls of the same graph on consecutive layers into one loop."""

import re
from dataclasses import dataclass, replace

from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.types import same_type, tensors
from hf2khc.passes.hub.layer_sequences import are_neighbours, is_aligned, mixed_sequences


def roll_loops(program: Program) -> Program:
    """Turn a chain of calls on `layers.0`, `layers.1` ... into a `loop`.

    A chain needs the same graph, consecutive paths, each result feeding the next call and nothing else, and all other
    operands the same; graph parameters that differ become tuples with one value per iteration. Where kinds of layers
    alternate, so does the graph.

    Before:

        graph Block<window>(%x: f32[batch, 8]) {
          %a: f32[batch, 8] = ops.multiply(%x, x2=window)
          return %a
        }

        graph Model(%x: f32[batch, 8]) {
          %b: f32[batch, 8] = call(%x, graph="Block", path="h.0", window=2.0)
          %c: f32[batch, 8] = call(%b, graph="Block", path="h.1", window=3.0)
          return %c
        }

        entry Model

    After:

        graph Block<window>(%x: f32[batch, 8]) {
          %a: f32[batch, 8] = ops.multiply(%x, x2=window)
          return %a
        }

        graph Model(%x: f32[batch, 8]) {
          %c: f32[batch, 8] = loop(%x, graph="Block", path="h.{i}", start=0, count=2, carry=1, window=(2.0, 3.0))
          return %c
        }

        entry Model
    """
    return _carried_first(program).map(_rolled)


@dataclass(frozen=True)
class _Chain:
    calls: tuple[Node, ...]
    carried: tuple[int, ...]  # operand positions that take the previous call's results

    @property
    def is_mixed(self) -> bool:
        """Whether the calls are of several graphs, whose inputs are in order already."""
        return len({call.attrs["graph"] for call in self.calls}) > 1


def _carried_first(program: Program) -> Program:
    """The program where the inputs that a chain carries come first in its graph, at every call."""
    orders: dict[str, tuple[int, ...]] = {}
    for graph in program.graphs.values():
        for chain in _chains(graph):
            if chain.is_mixed:
                continue
            rest = (i for i in range(len(chain.calls[0].operands)) if i not in chain.carried)
            orders.setdefault(str(chain.calls[0].attrs["graph"]), (*chain.carried, *rest))
    return program.map(lambda graph: _reordered(graph, orders))


def _reordered(graph: Graph, orders: dict[str, tuple[int, ...]]) -> Graph:
    nodes = [
        replace(node, operands=tuple(node.operands[i] for i in orders[str(node.attrs["graph"])]))
        if node.op == "call" and node.attrs["graph"] in orders
        else node
        for node in graph
    ]
    if graph.name in orders:
        inputs = [graph.inputs[i] for i in orders[graph.name]]
        nodes = [*inputs, *(node for node in nodes if node.op != "input")]
    return graph.replaced(nodes)


def _rolled(graph: Graph) -> Graph:
    for chain in _chains(graph):
        if chain.carried == tuple(range(len(chain.carried))):
            graph = _with_loop(graph, chain)
    return graph


def _chains(graph: Graph) -> list[_Chain]:
    """The chains of a graph, none overlapping another."""
    chains = [_Chain(calls, (0,)) for calls in mixed_sequences(graph) if _is_loop(graph, calls)]
    used = {call.name for chain in chains for call in chain.calls}
    for call in graph.of("call"):
        chain = None if call.name in used else _chain(graph, call)
        if chain is not None:
            used.update(c.name for c in chain.calls)
            chains.append(chain)
    return chains


def _is_loop(graph: Graph, calls: tuple[Node, ...]) -> bool:
    return is_aligned(calls) and all(_types_carry(graph, call, (0,)) for call in calls)


def _chain(graph: Graph, first: Node) -> _Chain | None:
    """The longest chain that starts at `first`, of at least two calls."""
    calls, carried = [first], None
    while True:
        found = _next(graph, calls[-1])
        if found is None or (carried is not None and found[1] != carried) or not _alike(calls[0], found[0], found[1]):
            break
        call, carried = found
        calls.append(call)
    if carried is None or not _types_carry(graph, calls[0], carried):
        return None
    return _Chain(tuple(calls), carried)


def _next(graph: Graph, call: Node) -> tuple[Node, tuple[int, ...]] | None:
    """The call that takes all results of `call`, and at which operands."""
    results = _results(graph, call)
    users = {user.name for result in results if result for user in graph.users(result)} - set(results)
    if len(users) != 1 or any(result in graph.outputs for result in results):
        return None
    user = graph[users.pop()]
    if user.op != "call" or user.attrs["graph"] != call.attrs["graph"] or not _consecutive(call, user):
        return None
    if any(result is None or user.operands.count(result) != 1 for result in results):
        return None
    return user, tuple(user.operands.index(result) for result in results)


def _results(graph: Graph, call: Node) -> list[str | None]:
    """The names of the call's results, `None` for one nobody reads."""
    if not isinstance(call.type, tuple):
        return [call.name]
    items = {user.attrs["index"]: user.name for user in graph.users(call.name) if user.op == "item"}
    return [items.get(i) for i in range(len(call.type))]


def _consecutive(a: Node, b: Node) -> bool:
    """Whether two calls are of neighbours in a list of layers, or of one layer whose weights are shared."""
    return a.attrs["path"] == b.attrs["path"] or are_neighbours(a, b)


def _alike(a: Node, b: Node, carried: tuple[int, ...]) -> bool:
    rest = [i for i in range(len(a.operands)) if i not in carried]
    return all(a.operands[i] == b.operands[i] for i in rest)


def _types_carry(graph: Graph, call: Node, carried: tuple[int, ...]) -> bool:
    return all(
        same_type(graph[call.operands[position]].type, result)  # type: ignore[index]
        for position, result in zip(carried, tensors(call.type), strict=True)
    )


def _with_loop(graph: Graph, chain: _Chain) -> Graph:
    first, last = chain.calls[0], chain.calls[-1]
    path, start = _path(chain)
    keys = dict.fromkeys(key for call in chain.calls for key in call.attrs if key != "path")
    varying = {key: _per_iteration([call.attrs.get(key) for call in chain.calls]) for key in keys}
    loop = replace(
        last,
        op="loop",
        operands=first.operands,
        attrs={
            "graph": varying.pop("graph"),
            "path": path,
            "start": start,
            "count": len(chain.calls),
            "carry": len(chain.carried),
            **varying,
        },
        origin=frozenset().union(*(call.origin for call in chain.calls)),
    )
    return graph.rewired([loop])


def _path(chain: _Chain) -> tuple[str, int]:
    """The path of every iteration's layer, `{i}` for its number, and the first number; of one layer just its path."""
    first = str(chain.calls[0].attrs["path"])
    if first == chain.calls[1].attrs["path"]:
        return first, 0
    prefix, start = re.fullmatch(r"(.*?)(\d+)", first).groups()  # type: ignore[union-attr]
    return f"{prefix}{{i}}", int(start)


def _per_iteration(values: list):
    """One value for all iterations, or a tuple with one for each; a tuple always means the latter."""
    alike = all(v == values[0] and type(v) is type(values[0]) for v in values)
    return values[0] if alike and not isinstance(values[0], tuple) else tuple(values)
