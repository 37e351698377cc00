"""Move transposes down until they cancel."""

from hf2khc.ir.analysis import repeated_graphs
from hf2khc.ir.graph import Graph, Program
from hf2khc.passes.hub.layout_rules import Permutation
from hf2khc.passes.hub.sinking import Border, Sinking, inverted


def sink_transposes(program: Program) -> Program:
    """Move each transpose of data below the operations that do not care about layout; two that meet cancel.

    Attention in torch works on (batch, heads, seq, head_dim), in Keras on (batch, seq, heads, head_dim): what stands
    between the two transposes (rotary embedding, norms of queries and keys, repeated heads) moves to Keras's layout.
    Transposes pass the borders of modules, too: those that end a module are its callers' to do, and so are those that
    begin it. A convolution and a norm in a module of their own, as in ResNet, have none left.

    Before:

        graph Attention(%x: f32[batch, seq, 3, 4]) {
          %t: f32[batch, 3, seq, 4] = ops.transpose(%x, axes=(0, 2, 1, 3))
          %y: f32[batch, 3, seq, 4] = ops.negative(%t)
          %z: f32[batch, seq, 3, 4] = ops.transpose(%y, axes=(0, 2, 1, 3))
          return %z
        }

        entry Attention

    After:

        graph Attention(%x: f32[batch, seq, 3, 4]) {
          %y: f32[batch, seq, 3, 4] = ops.negative(%x)
          return %y
        }

        entry Attention
    """
    whole = {program.entry, *repeated_graphs(program)}
    graphs: dict[str, Graph] = {}
    borders: dict[str, Border] = {}
    for graph in program.callees_first():
        if graph.name in whole:
            graphs[graph.name] = Sinking(graph, borders).run().whole()
        else:
            graphs[graph.name], borders[graph.name] = _opened(graph, borders)
    return program.with_graphs(graphs.values())


def _opened(graph: Graph, borders: dict[str, Border]) -> tuple[Graph, Border]:
    """A graph whose transposes at its borders are left to its callers."""
    taken: dict[str, Permutation] = {}
    best = Sinking(graph, borders).run()
    for node in graph.inputs:
        if node.tensor.is_floating and node.tensor.rank > 2:
            for due in _candidates(best, node.tensor.rank):
                trial = Sinking(graph, borders, {**taken, node.name: due}).run()
                if _cost(trial) < _cost(best):
                    best, taken = trial, {**taken, node.name: due}
    takes = {i: inverted(taken[node.name]) for i, node in enumerate(graph.inputs) if node.name in taken}
    return best.inner(), Border(takes, best.due)


def _candidates(walk: Sinking, rank: int) -> list[Permutation]:
    """Layouts in which an input may come: those that the values of the graph have."""
    found = [due for _, due in (*walk.layout.values(), *walk.source.values()) if due and len(due) == rank]
    return list(dict.fromkeys(p for due in found for p in (inverted(due), due)))


def _cost(walk: Sinking) -> int:
    return len(walk.inner().of("ops.transpose"))
