"""What a compiled program consists of, and which rules it came near to: for the report and for --explain."""

import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from hf2khc.ir.analysis import weight_values
from hf2khc.ir.float64 import keras_on_torch
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.text import format_node
from hf2khc.passes.hub import recognize_idioms, recognize_masks, recognize_rotary
from hf2khc.passes.pipeline import stage_names
from hf2khc.rewrite.matcher import Miss, match
from hf2khc.rewrite.pattern import Rule

# Passes that are a set of rules, one per idiom.
_RECOGNIZERS = (recognize_idioms, recognize_rotary, recognize_masks)
# A miss says something only where more than the root fitted.
_LEAST_DEPTH = 2


def idioms(program: Program) -> dict[str, dict[str, int]]:
    """How often each layer, and each function of `keras.ops.nn`, is used, by graph."""
    found = {}
    for graph in program.callees_first():
        counts = Counter(node.op.rpartition(".")[2] for node in graph if _is_idiom(node))
        counts.update(node.op for node in graph.of("loop"))
        if counts:
            found[graph.name] = dict(sorted(counts.items()))
    return found


def residue(program: Program) -> dict[str, int]:
    """How often each operation outside every idiom is printed as a bare `keras.ops` call."""
    counts: Counter[str] = Counter()
    for graph in program.callees_first():
        weights = weight_values(graph)
        counts.update(n.op for n in graph if n.level == "ops" and n.name not in weights and not _is_idiom(n))
    return dict(counts.most_common())


def _is_idiom(node: Node) -> bool:
    return node.level in ("layers", "hub") or node.op.removeprefix("ops.") in _functions_of_networks()


@functools.cache
def _functions_of_networks() -> frozenset[str]:
    """The functions that Keras itself files under neural networks: attention, norms, activations, convolutions."""
    return frozenset(name for name in dir(keras_on_torch().ops.nn) if not name.startswith("_"))


@dataclass(frozen=True)
class NearMiss:
    """Where a rule came nearest to fitting, and what kept it from it.

    Args:
        rule: its name.
        graph: where it was tried.
        place: line of the model's source, may be empty.
        depth: how many nodes fitted.
        value: the node where the attempt ended, as IR text; empty where it ended at an attribute.
        reason: what the rule wants there.
    """

    rule: str
    graph: str
    place: str
    depth: int
    value: str
    reason: str


def nearest_misses(stages: Mapping[str, Program]) -> tuple[NearMiss, ...]:
    """Of each rule of an idiom its nearest miss, on the programs that the rules are applied to; nearest first.

    Args:
        stages: the program after each pass, by name.
    """
    found: list[NearMiss] = []
    for recognizer in _RECOGNIZERS:
        before = stages[_stage_before(recognizer.__name__.rpartition(".")[2])]
        for rule in recognizer.RULES:
            misses = [(graph, miss) for graph in before.callees_first() for miss in _misses(rule, graph)]
            if misses:
                found.append(_described(*max(misses, key=lambda pair: pair[1].depth)))
    return tuple(sorted(found, key=lambda miss: -miss.depth))


def _stage_before(name: str) -> str:
    names = stage_names()
    return names[names.index(name) - 1]


def _misses(rule: Rule, graph: Graph) -> Iterator[Miss]:
    nodes: Iterable[Node] = graph.of(*rule.roots)
    for node in nodes:
        found = match(rule, graph, node)
        if isinstance(found, Miss) and found.depth >= _LEAST_DEPTH:
            yield found


def _described(graph: Graph, miss: Miss) -> NearMiss:
    root = graph[miss.root]
    value = format_node(graph[miss.node]) if miss.node in graph else ""
    return NearMiss(miss.rule.name, graph.name, str(root.loc or ""), miss.depth, value, miss.reason)
