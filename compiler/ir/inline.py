"""Inlining of calls: a callee's nodes put in place of the call."""

from collections.abc import Callable
from dataclasses import replace

from hf2khc.ir.expr import Expr
from hf2khc.ir.graph import LEAVES, Graph, Node, Program, join


def inline_calls(program: Program, chosen: Callable[[Graph, Node], bool]) -> Program:
    """Inline every call for which `chosen(callee, call)` holds, callees first; unreachable graphs are dropped."""
    done: dict[str, Graph] = {}
    for graph in program.callees_first():
        # From the root, a path from the root is a relative one: one parameter has one name.
        root = graph.name == program.entry
        done[graph.name] = _inlined(graph, done, chosen, root)
    return program.with_graphs(done.values())


def _inlined(graph: Graph, done: dict[str, Graph], chosen: Callable[[Graph, Node], bool], root: bool) -> Graph:
    calls = [node for node in graph.of("call") if chosen(done[str(node.attrs["graph"])], node)]
    if not calls:
        return graph
    nodes = dict(graph.nodes)
    redirect: dict[str, str] = {}
    for call in calls:
        callee = _in_sizes_of(graph, done[str(call.attrs["graph"])], call)
        # A name that an earlier call has left is still redirected: nothing else may take it.
        body, results = _body(callee, call, {*graph.nodes, *nodes}, root)
        del nodes[call.name]
        nodes.update(body)
        redirect.update(_results(graph, call, results, nodes))
    return graph.replaced(nodes.values(), outputs=[redirect.get(o, o) for o in graph.outputs]).rewired(
        redirect=redirect
    )


def _in_sizes_of(caller: Graph, callee: Graph, call: Node) -> Graph:
    """The callee in the caller's symbols: what it calls `seq` may be `decoder_seq` there."""
    sizes: dict[str, object] = {}
    for node, operand in zip(callee.inputs, call.used, strict=True):
        for dim, given in zip(node.tensor.shape, caller[operand].tensor.shape, strict=True):
            if isinstance(dim, Expr) and dim.names == {dim.text}:
                sizes.setdefault(dim.text, given)
    changed = {name: size for name, size in sizes.items() if str(size) != name}
    return callee.substituted(changed) if changed else callee


def _body(callee: Graph, call: Node, taken: set[str], root: bool) -> tuple[dict[str, Node], list[str]]:
    """The callee's nodes under names free in the caller, and the names of its results there."""
    callee = callee.substituted({p: call.attrs[p] for p in callee.parameters})
    names: dict[str, str] = dict(zip((node.name for node in callee.inputs), call.used, strict=True))
    body: dict[str, Node] = {}
    for node in callee:
        if node.op == "input":
            continue
        names[node.name] = _new_name(node, call, {*taken, *body}, root)
        operands = tuple(o if o is None else names[o] for o in node.operands)
        attrs = dict(node.attrs)
        if "path" in attrs:
            attrs["path"] = join(str(call.attrs["path"]), str(attrs["path"]))
        body[names[node.name]] = replace(node, name=names[node.name], operands=operands, attrs=attrs)
    return body, [names[o] for o in callee.outputs]


def _new_name(node: Node, call: Node, taken: set[str], root: bool) -> str:
    if node.op in LEAVES:
        return leaf_name(node.name, str(call.attrs["path"]), root)
    name, n = node.name, 0
    while name in taken:
        n += 1
        name = f"{node.name}_{n}"
    return name


def _results(graph: Graph, call: Node, results: list[str], nodes: dict[str, Node]) -> dict[str, str]:
    """What takes the place of the call: its one result, or the results behind its `item` nodes."""
    if not isinstance(call.type, tuple):
        return {call.name: results[0]}
    redirect = {}
    for user in graph.users(call.name):
        assert user.op == "item", f"%{call.name} is used whole by %{user.name}"
        redirect[user.name] = results[int(user.attrs["index"])]  # type: ignore[call-overload]
        nodes.pop(user.name, None)
    return redirect


def leaf_name(name: str, path: str, root: bool) -> str:
    """The name of a callee's parameter or constant in its caller.

    Args:
        path: of the call.
        root: whether the caller is the entry, where paths from the root are plain.
    """
    if name.startswith("@/"):
        return f"@{name[2:]}" if root else name
    return f"@{join(path, name[1:])}"
