"""What the layers of a decoder compute from an encoder's output alone: computed once, and handed to every step."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from hf2khc.ir.expr import evaluate, names_of
from hf2khc.ir.graph import LEAVES, Graph, Node, Program, callees
from hf2khc.ir.types import Tensor
from hf2khc.write.cross_cache import operands_of
from hf2khc.write.layer_facts import takes_training
from hf2khc.write.plan import KEPT, ONCE

# Operations that only arrange what one operand holds: what is kept may stand before them.
_ARRANGING = ("ops.repeat", "ops.reshape", "ops.transpose", "ops.swapaxes", "ops.expand_dims", "ops.broadcast_to")
_ANY = 7919


@dataclass(frozen=True)
class Fixed:
    """What is known of a graph of the cached step.

    Args:
        values: those for which it does not matter how many positions there are.
        weights: the values that depend on weights alone.
    """

    values: frozenset[str]
    weights: frozenset[str]


def compute_once(
    program: Program, derived: Mapping[str, Fixed], layers: Collection[str], encoded: str, sizes: Mapping[str, object]
) -> tuple[Program, dict[str, tuple[str, ...]]]:
    """Mark in each layer what may be computed once: keys and values of an attention to what an encoder gave.

    Args:
        program: the cached step.
        derived: its graphs, callees first.
        layers: the calls and loops of the entry that cache.
        encoded: the value that the encoder hands over.
        sizes: values of config fields.

    Returns:
        The program, and for every graph with such values the inputs that they are computed from. Where not all of the
        layers have some, or one has them in several places, there are none, and every step computes them.
    """
    once: dict[str, tuple[str, ...]] = {}
    graphs = dict(program.graphs)
    for name in [name for name in derived if name != program.entry]:
        found = _marked(derived[name], graphs[name], graphs, once, sizes)
        if found:
            graphs[name], once[name] = found
    nodes = [program.main[name] for name in layers]
    given = [operands_of(node, graphs[name], once.get(name, ())) for node in nodes for name in callees(node)]
    if not given or any(names != (encoded,) for names in given):
        return program, {}
    return program.with_graphs(graphs.values()), once


def _marked(
    fixed: Fixed, graph: Graph, graphs: Mapping[str, Graph], once: Mapping[str, tuple[str, ...]],
    sizes: Mapping[str, object],
) -> tuple[Graph, tuple[str, ...]] | None:  # fmt: skip
    """A graph with what it computes once marked, and the inputs of that."""
    inner = [n for n in graph.of("call", "loop") if any(name in once for name in callees(n))]
    cuts = list(dict.fromkeys(_smallest(fixed, graph, name, sizes) for name in _computed(fixed, graph)))
    if inner:
        callee = callees(inner[0])[0]
        operands = operands_of(inner[0], graphs[callee], once.get(callee, ()))
        if cuts or len(inner) > 1 or inner[0].op != "call" or not _is_plain(fixed, graph, operands):
            return None
        return graph, _inputs(graph, operands)
    if not cuts or not _is_plain(fixed, graph, cuts) or not _inputs(graph, cuts):
        return None
    return _with_mark(graph, cuts), _inputs(graph, cuts)


def _computed(fixed: Fixed, graph: Graph) -> list[str]:
    """The values of no position that a weight goes into, and that those of positions are computed from."""
    read = {o for node in graph if node.name not in fixed.values for o in node.used if o in fixed.values}
    found = [graph[name] for name in graph.nodes if name in read - fixed.weights]
    heavy = [node for node in found if any(graph[name].level == "layers" for name in graph.behind({node.name}))]
    return [node.name for node in heavy if isinstance(node.type, Tensor) and _has_rows(node.type)]


def _has_rows(type_: Tensor) -> bool:
    """A row for each sequence: a sampler that follows several samples repeats and picks rows."""
    return type_.rank > 0 and str(type_.shape[0]) == "batch"


def _smallest(fixed: Fixed, graph: Graph, name: str, sizes: Mapping[str, object]) -> str:
    """Where a value is smallest before it is arranged: before heads are repeated."""
    chain = [name]
    while graph[chain[-1]].op in _ARRANGING and graph[graph[chain[-1]].used[0]].op != "input":
        chain.append(graph[chain[-1]].used[0])

    def size(found: str) -> float:
        shape = graph[found].tensor.shape
        return math.prod(float(evaluate(dim, {n: sizes.get(n, _ANY) for n in names_of(dim)})) for dim in shape)

    return min((found for found in chain if found not in fixed.weights), key=size)


def _is_plain(fixed: Fixed, graph: Graph, names: Collection[str]) -> bool:
    """Whether values are computed by layers and operations alone, none of which is random or names a dtype.

    A method beside `call` is not told whether the model is trained, and casts no weights.
    """
    behind = [graph[name] for name in graph.behind(names)]
    if any(name not in fixed.values for name in names):
        return False
    nodes = [node for node in behind if node.op not in LEAVES and node.name not in fixed.weights]
    ops = [node for node in nodes if node.level == "ops"]
    return (
        all(node in ops or node.level == "layers" and not takes_training(node.op) for node in nodes)
        and not any(fixed.weights.intersection(node.used) for node in ops)
        and not any("dtype" in node.attrs for node in ops)
    )


def _inputs(graph: Graph, names: Collection[str]) -> tuple[str, ...]:
    behind = graph.behind(names)
    return tuple(node.name for node in graph.inputs if node.name in behind)


def _with_mark(graph: Graph, cuts: list[str]) -> Graph:
    """All that is computed from the values reads them from one operation."""
    nodes = [graph[cut] for cut in cuts]
    origin = frozenset().union(*(node.origin for node in nodes))
    whole = Node(graph.fresh("kept"), ONCE, tuple(cuts), {}, tuple(n.tensor for n in nodes), nodes[0].loc, origin)
    items = [
        Node(graph.fresh(f"{node.name}{KEPT}"), "item", (whole.name,), {"index": i}, node.type, node.loc, node.origin)
        for i, node in enumerate(nodes)
    ]
    inside, names = graph.behind(cuts), dict(zip(cuts, (item.name for item in items), strict=True))
    rest = [
        node if node.name in inside else replace(node, operands=tuple(o and names.get(o, o) for o in node.operands))
        for node in graph
    ]
    return graph.replaced([*rest, whole, *items])
