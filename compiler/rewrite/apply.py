"""Applying rules to a graph until none fits."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from hf2khc.diagnostics import fail
from hf2khc.ir.graph import Graph, Node
from hf2khc.rewrite.build import build
from hf2khc.rewrite.matcher import Match, match
from hf2khc.rewrite.pattern import Rule

# A sweep applies every match that does not overlap another; a set of rules that needs more goes round in circles.
_MAX_SWEEPS = 100


def apply_rules(graph: Graph, rules: Iterable[Rule]) -> Graph:
    """Rewrite bottom-up until no rule fits; at a node the first rule in order wins.

    A root keeps its name and type; new inner nodes get inferred types, the root's location, and the origins of all that
    they replace together with the rule's name.

    Raises:
        ConversionError: a rule makes a value of another shape, or the rules do not come to an end.
    """
    by_root = _by_root(rules)
    for _ in range(_MAX_SWEEPS):
        found = _sweep(graph, by_root)
        if not found:
            return graph
        graph = _rewritten(graph, found)
    names = ", ".join(sorted({m.rule.name for m in found}))
    raise fail("rule-loop", f"rules go round in circles in graph {graph.name}: {names}")


def apply_to_shared(graph: Graph, rules: Iterable[Rule]) -> Graph:
    """Rewrite each root once, whatever else uses the values inside a match: for those they stay.

    Tables of sines and cosines turn queries and keys alike. Costs nothing where the template computes all of it anew.

    Raises:
        ConversionError: a rule makes a value of another shape.
    """
    by_root = _by_root(rules)
    for node in [node for node in graph if node.op in by_root]:
        alone = graph.replaced(outputs=(node.name,)).pruned()
        found = _first(alone, node, by_root[node.op])
        if found is not None:
            graph = _rewritten(graph, [found])
    return graph


def _by_root(rules: Iterable[Rule]) -> dict[str, list[Rule]]:
    found: dict[str, list[Rule]] = {}
    for rule in rules:
        for op in sorted(rule.roots):
            found.setdefault(op, []).append(rule)
    return found


def _sweep(graph: Graph, by_root: Mapping[str, Sequence[Rule]]) -> list[Match]:
    """Matches that do not overlap: of two that do the larger, so that optional parts are taken, then the lower."""
    hits = (_first(graph, node, by_root.get(node.op, ())) for node in graph)
    covered: set[str] = set()
    found: list[Match] = []
    for hit in sorted((hit for hit in hits if hit is not None), key=lambda hit: -len(hit.nodes)):
        if covered.isdisjoint(hit.nodes):
            covered.update(hit.nodes)
            found.append(hit)
    return found


def _first(graph: Graph, node: Node, rules: Sequence[Rule]) -> Match | None:
    for rule in rules:
        found = match(rule, graph, node)
        if isinstance(found, Match):
            return found
    return None


def _rewritten(graph: Graph, found: Sequence[Match]) -> Graph:
    new: dict[str, list[Node]] = {}
    redirect: dict[str, str] = {}
    taken: set[str] = set()
    for hit in found:
        nodes, moved = build(graph, hit, taken)
        redirect.update(moved)
        if nodes:
            new[hit.root] = nodes
    return splice(graph, new, redirect)


def splice(
    graph: Graph, new: Mapping[str, Sequence[Node]], redirect: Mapping[str, str] = MappingProxyType({})
) -> Graph:
    """Put nodes in the place of roots, where the roots stood; the last of each keeps the root's name."""
    nodes = [made for node in graph for made in new.get(node.name, (node,))]
    return graph.replaced(nodes).rewired(redirect=redirect)
