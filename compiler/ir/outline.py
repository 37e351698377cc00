"""Outlining: a part of a graph becomes a graph of its own, with a call in its place."""

import os
import re
from collections.abc import Container

from hf2khc.ir.analysis import sizes_read, weight_values
from hf2khc.ir.graph import Graph, Node, Program, numbered
from hf2khc.ir.types import plain_symbols

# The first word of a name in CamelCase.
_WORD = re.compile("[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+")


def outline(graph: Graph, region: frozenset[str], name: str, cls: str = "") -> tuple[Graph, Graph]:
    """The graph with a call in place of the region, and the region as a graph called `name`, of the class `cls`.

    Parameters, constants and weight expressions that the region reads go with it; the call's path is empty, so they
    keep their paths. Nodes of the region that others use too are results.
    """
    weights = weight_values(graph)
    inside = [node for node in graph if node.name in region]
    fixed = _fixed_behind(graph, inside, weights)
    given = [n for n in graph.nodes if n not in region and n not in fixed and any(n in node.used for node in inside)]
    given += _size_sources(graph, inside, given)
    # A layer of Keras is called on something, be it for nothing.
    given = given or [node.name for node in graph.inputs[:1]]
    results = [
        n.name for n in inside if n.name in graph.outputs or any(u.name not in region for u in graph.users(n.name))
    ]
    inputs = [Node(n, "input", type=graph[n].type, origin=graph[n].origin) for n in given]
    layer = Graph(name, [*inputs, *(graph[n] for n in graph.nodes if n in fixed), *inside], results, cls=cls)
    types = tuple(graph[result].tensor for result in results)
    origin = frozenset().union(*(node.origin for node in inside)) | {"outline"}
    attrs = {"graph": name, "path": ""}
    if len(results) == 1:
        made = [Node(results[0], "call", tuple(given), attrs, types[0], inside[0].loc, origin)]
    else:
        whole = graph.fresh(results[0] + "_all")
        made = [Node(whole, "call", tuple(given), attrs, types, inside[0].loc, origin)]
        made += [
            Node(result, "item", (whole,), {"index": i}, type_, origin=origin)
            for i, (result, type_) in enumerate(zip(results, types, strict=True))
        ]
    rest = [node for node in graph if node.name not in region]
    return graph.replaced([*rest, *made]).pruned(), layer


def _fixed_behind(graph: Graph, inside: list[Node], weights: frozenset[str]) -> set[str]:
    """Parameters, constants and weight expressions the region reads, whole."""
    return graph.behind(o for node in inside for o in node.used if o in weights or graph[o].op in ("param", "const"))


def _size_sources(graph: Graph, inside: list[Node], given: list[str]) -> list[str]:
    """Inputs of the model to read the sizes off that no operand of the region shows."""
    need = {size for node in inside for size in sizes_read(node)}
    have = {s for name in given for s in plain_symbols(graph[name].type)}
    sources = []
    while missing := need - have:
        # One that shows several: a batch and its length are read off the tokens.
        source = max(graph.inputs, key=lambda node: len(missing & plain_symbols(node.type)), default=None)
        if source is None or not missing & plain_symbols(source.type):
            break
        sources.append(source.name)
        have |= plain_symbols(source.type)
    return sources


def unused(base: str, taken: Container[str]) -> str:
    """`base`, or `base2`, `base3` ... where that is taken."""
    return numbered(base, taken, first=2, between="")


def class_prefix(program: Program) -> str:
    """What the names of the model's own classes begin with: `Llama` of `LlamaAttention` and `LlamaMLP`.

    Classes of torch (`Sequential`) and of other models do not count.
    """
    first = _WORD.match(program.main.cls)
    names = [graph.cls for graph in program.graphs.values() if first is None or graph.cls.startswith(first[0])]
    prefix = os.path.commonprefix(names)
    # Not in the middle of a word: `LlamaMLP` and `LlamaModel` share `Llama`.
    if any(name[len(prefix) : len(prefix) + 1].islower() for name in names):
        prefix = re.sub(r"[A-Z][a-z0-9]*$", "", prefix)
    return prefix or program.main.cls
