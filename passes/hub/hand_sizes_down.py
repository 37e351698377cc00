"""Give every module a value to read its sizes off."""

from dataclasses import replace

from hf2khc.ir.expr import names_of
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.types import plain_symbols, tensors


def hand_sizes_down(program: Program) -> Program:
    """Hand a value of the caller to a module that computes with a size none of its inputs shows.

    A table of positions needs only the length of the ids it is called with, so a trace hands it nothing at all.

    Before:

        graph Positions() {
          %y: i64[seq] = ops.arange(start=0, stop=seq, dtype="int64")
          return %y
        }

        graph Model(%ids: i64[batch, seq]) {
          %y: i64[seq] = call(graph="Positions", path="positions")
          return %y
        }

        entry Model

    After:

        graph Positions(%ids: i64[batch, seq]) {
          %y: i64[seq] = ops.arange(start=0, stop=seq, dtype="int64")
          return %y
        }

        graph Model(%ids: i64[batch, seq]) {
          %y: i64[seq] = call(%ids, graph="Positions", path="positions")
          return %y
        }

        entry Model
    """
    missing = _missing(program)
    if not any(missing.values()):
        return program
    graphs = dict(program.graphs)
    for name in reversed([graph.name for graph in program.callees_first()]):
        graphs[name] = graphs[name].replaced([_handed(graphs, graphs[name], node, missing) for node in graphs[name]])
    return program.with_graphs(graphs.values())


def _missing(program: Program) -> dict[str, frozenset[str]]:
    """Sizes that a graph, or one it calls, computes with and no input of it shows."""
    missing: dict[str, frozenset[str]] = {}
    for graph in program.callees_first():
        needed = {s for node in graph for value in node.attrs.values() for s in names_of(value)}
        needed |= {s for call in graph.of("call", "scan") for s in missing[str(call.attrs["graph"])]}
        missing[graph.name] = frozenset(s for s in needed if "." not in s) - _shown(graph) - {*graph.parameters}
    return missing


def _shown(graph: Graph) -> frozenset[str]:
    return frozenset().union(*(plain_symbols(node.type) for node in graph.inputs))


def _handed(graphs: dict[str, Graph], caller: Graph, call: Node, missing: dict[str, frozenset[str]]) -> Node:
    """The call with a value for each size its callee lacks; the callee takes it."""
    if call.op not in ("call", "scan"):
        return call
    callee = graphs[str(call.attrs["graph"])]
    for symbol in sorted(missing[callee.name]):
        if symbol in _shown(callee):
            continue
        source = _source(caller, call, symbol)
        if source is not None:
            made = Node(callee.fresh(source.name), "input", type=source.type, origin=source.origin)
            rest = [node for node in callee if node.op != "input"]
            callee = callee.replaced([*callee.inputs, made, *rest])
            call = replace(call, operands=(*call.operands, source.name))
    graphs[callee.name] = callee
    return call


def _source(caller: Graph, call: Node, symbol: str) -> Node | None:
    """A value that is there before the call and shows the size, an input where one does."""
    before: list[Node] = []
    for node in caller:
        if node.name == call.name:
            break
        before.append(node)
    showing = [n for n in before if len(tensors(n.type)) == 1 and symbol in plain_symbols(n.type)]
    return next((n for n in showing if n.op == "input"), showing[0] if showing else None)
