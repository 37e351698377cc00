"""Spell causal masks out in the operations that are printed."""

from dataclasses import replace

from hf2khc.ir.expr import Expr
from hf2khc.ir.graph import CALLS, Graph, Node, Program, callees
from hf2khc.ir.types import Tensor

# No window: wider than any sequence whose positions fit in 32 bits.
UNLIMITED = 2**31 - 1


def lower_masks(program: Program) -> Program:
    """Turn `hub.causal_mask` into comparisons of positions.

    Where the window is a parameter of the graph, a layer without one gives a window that reaches everywhere.

    Before:

        graph Mask(%q: i64[1, 1, seq, 1], %k: i64[1, 1, 1, seq]) {
          %y: bool[1, 1, seq, seq] = hub.causal_mask(%q, %k, window=4)
          return %y
        }

        entry Mask

    After:

        graph Mask(%q: i64[1, 1, seq, 1], %k: i64[1, 1, 1, seq]) {
          %causal_mask: bool[1, 1, seq, seq] = ops.less_equal(%k, %q)
          %window_start: i64[1, 1, seq, 1] = ops.subtract(%q, x2=4)
          %window_mask: bool[1, 1, seq, seq] = ops.greater(%k, %window_start)
          %y: bool[1, 1, seq, seq] = ops.logical_and(%window_mask, %causal_mask)
          return %y
        }

        entry Mask
    """
    windows: dict[str, set[str]] = {}
    graphs = [_lowered(graph, windows) for graph in program.graphs.values()]
    program = program.with_graphs(graphs)
    return _given(program, windows) if any(windows.values()) else program


def _lowered(graph: Graph, windows: dict[str, set[str]]) -> Graph:
    new: list[Node] = []
    windows[graph.name] = set()
    for node in graph.of("hub.causal_mask"):
        window = node.attrs["window"]
        if isinstance(window, Expr) and window.text in graph.parameters:
            windows[graph.name].add(window.text)
        new += _mask(graph, node, window, [n.name for n in new])
    return graph.rewired(new) if new else graph


def _mask(graph: Graph, node: Node, window, taken: list[str]) -> list[Node]:
    query, key = node.used
    whole = node.tensor
    made: list[Node] = []

    def add(title: str, op: str, operands: tuple[str, ...], type_: Tensor, **attrs: object) -> str:
        name = title if title == node.name else graph.fresh(title, taken=[*taken, *(n.name for n in made)])
        made.append(Node(name, op, operands, attrs, type_, node.loc, node.origin | {"lower_masks"}))
        return name

    if window is None:
        add(node.name, "ops.less_equal", (key, query), whole)
        return made
    causal = add("causal_mask", "ops.less_equal", (key, query), whole)
    first = add("window_start", "ops.subtract", (query,), graph[query].tensor, x2=window)
    inside = add("window_mask", "ops.greater", (key, first), whole)
    add(node.name, "ops.logical_and", (inside, causal), whole)
    return made


def _given(program: Program, windows: dict[str, set[str]]) -> Program:
    """Every call gives a number for a window; the parameter may be handed through several graphs."""
    for graph in program.callees_first():
        for call in graph.of(*CALLS):
            for name in _windows(call, windows):
                value = call.attrs[name]
                if isinstance(value, Expr) and value.text in graph.parameters:
                    windows[graph.name].add(value.text)

    def numbered(node: Node) -> Node:
        if node.op not in CALLS:
            return node
        changes = {name: _number(node.attrs[name]) for name in _windows(node, windows)}
        return replace(node, attrs={**node.attrs, **changes})

    return program.map(lambda graph: graph.replaced([numbered(node) for node in graph]))


def _windows(node: Node, windows: dict[str, set[str]]) -> set[str]:
    return set().union(*(windows[name] for name in callees(node)))


def _number(value):
    if isinstance(value, tuple):
        return tuple(map(_number, value))
    return UNLIMITED if value is None else value
