"""Move transposes down until they cancel."""

from collections.abc import Mapping

from hf2khc.ir.analysis import repeated_graphs
from hf2khc.ir.graph import Graph, Program
from hf2khc.passes.hub.layout_rules import Permutation
from hf2khc.passes.hub.sinking import Opened, Sinking, inverted, open_graph


def sink_transposes(program: Program) -> Program:
    """Move each transpose of data below the operations that do not care about layout; two that meet cancel.

    Attention in torch works on (batch, heads, seq, head_dim), in Keras on (batch, seq, heads, head_dim): what stands
    between the two transposes (rotary embedding, norms of queries and keys, repeated heads) moves to Keras's layout.
    Transposes pass the borders of modules, too: those that end a module are its callers' to do, and so are those that
    begin it. A convolution and a norm in a module of their own, as in ResNet, have none left. A module that does not
    care takes what its caller has.

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
    opened: dict[str, Opened] = {}
    for graph in program.callees_first():
        if graph.name in whole:
            walk = Sinking(graph, opened).run()
            graphs[graph.name] = walk.whole()
            opened |= walk.changed
        else:
            opened[graph.name] = _opened(graph, opened)
            opened |= opened[graph.name].changed
    graphs |= {name: found.graph for name, found in opened.items()}
    return program.with_graphs(graphs[graph.name] for graph in program.callees_first())


def _opened(graph: Graph, opened: Mapping[str, Opened]) -> Opened:
    """A graph whose transposes at its borders are left to its callers."""
    best = open_graph(graph, opened, {})
    for place, node in enumerate(graph.inputs):
        if node.tensor.is_floating and node.tensor.rank > 2:
            for due in _candidates(best.walk, node.tensor.rank):
                trial = open_graph(graph, opened, {**best.taken, place: due})
                if trial.cost < best.cost:
                    best = trial
    return best


def _candidates(walk: Sinking, rank: int) -> list[Permutation]:
    """Layouts in which an input may come: those that the values of the graph have."""
    found = [due for _, due in (*walk.layout.values(), *walk.source.values()) if due and len(due) == rank]
    return list(dict.fromkeys(p for due in found for p in (inverted(due), due)))
