"""Move what a functional model cannot hold out of its body and into layers."""

import networkx as nx

from hf2khc.ir.analysis import weight_values
from hf2khc.ir.expr import names_of
from hf2khc.ir.graph import LEAVES, Graph, Node, Program
from hf2khc.ir.types import plain_symbols, tensors


def outline_entry(program: Program) -> Program:
    """Put computations with sizes, constants or bare parameters in the model's own body into layers of the package.

    A KerasHub backbone is a functional model: sizes must be read inside a layer's `call`, and parameters belong to layers.

    Before:

        graph Model(%ids: i64[batch, seq]) {
          param @wpe.weight: f32[16, 8]
          %positions: i64[seq] = ops.arange(_, stop=seq, start=0)
          %x: f32[seq, 8] = layers.Embedding(%positions, @wpe.weight, input_dim=16, output_dim=8)
          return %x
        }

        entry Model

    After:

        graph ModelPositionEmbedding(%ids: i64[batch, seq]) {
          param @wpe.weight: f32[16, 8]
          %positions: i64[seq] = ops.arange(_, stop=seq, start=0)
          %x: f32[seq, 8] = layers.Embedding(%positions, @wpe.weight, input_dim=16, output_dim=8)
          return %x
        }

        graph Model(%ids: i64[batch, seq]) {
          %x: f32[seq, 8] = call(%ids, graph="ModelPositionEmbedding", path="")
          return %x
        }

        entry Model
    """
    entry = program.main
    graphs = dict(program.graphs)
    for region in _regions(entry):
        name = _fresh(f"{entry.cls}{_role(entry, region)}", graphs)
        entry, layer = _outlined(entry, region, name)
        graphs[name] = layer
    graphs[entry.name] = entry
    return program.with_graphs(graphs.values())


def _regions(graph: Graph) -> list[frozenset[str]]:
    """Connected computations that must leave the body, each between two layers: no path leaves one and comes back."""
    weights = weight_values(graph)
    data = [node for node in graph if node.op.startswith("ops.") and node.name not in weights]
    depth = _depths(graph, {node.name for node in data})
    links = nx.Graph()
    links.add_nodes_from(node.name for node in data)
    links.add_edges_from((o, n.name) for n in data for o in n.used if o in links and depth[o] == depth[n.name])
    heavy = {node.name for node in data if _needs_layer(graph, node, weights)}
    regions = [set(region) for region in nx.connected_components(links) if region & heavy]
    for region in regions:
        region.update(_absorbed(graph, region, weights))
    order = {name: i for i, name in enumerate(graph.nodes)}
    return sorted(map(frozenset, regions), key=lambda region: min(map(order.__getitem__, region)))


def _depths(graph: Graph, data: set[str]) -> dict[str, int]:
    """How many layers stand on the longest path before each value."""
    depth: dict[str, int] = {}
    for node in graph:
        before = [depth[o] + (o not in data and graph[o].op not in LEAVES) for o in node.used]
        depth[node.name] = max(before, default=0)
    return depth


def _needs_layer(graph: Graph, node: Node, weights: frozenset[str]) -> bool:
    symbols = {s for value in node.attrs.values() for s in names_of(value) if not s.startswith("config.")}
    fixed = any(o in weights or graph[o].op == "const" for o in node.used)
    return bool(symbols) or fixed or not node.used


def _absorbed(graph: Graph, region: set[str], weights: frozenset[str]) -> set[str]:
    """Layers that read nothing but the region: a table of positions belongs with the positions."""
    found = set()
    for name in region:
        for user in graph.users(name):
            data = [o for o in user.used if o not in weights]
            if user.op.startswith("layers.") and all(o in region for o in data):
                found.add(user.name)
    return found


def _role(graph: Graph, region: frozenset[str]) -> str:
    if any(graph[name].op == "layers.Embedding" for name in region):
        return "PositionEmbedding"
    results = [name for name in region if name in graph.outputs or any(u.name not in region for u in graph.users(name))]
    if all(t.dtype == "bool" for name in results for t in tensors(graph[name].type)):
        return "AttentionMask"
    return "Outputs" if any(name in graph.outputs for name in results) else "Inputs"


def _outlined(graph: Graph, region: frozenset[str], name: str) -> tuple[Graph, Graph]:
    """The graph with a call in place of the region, and the region as a graph."""
    weights = weight_values(graph)
    inside = [node for node in graph if node.name in region]
    fixed = _fixed_behind(graph, inside, weights)
    given = [n for n in graph.nodes if n not in region and n not in fixed and any(n in node.used for node in inside)]
    given += _size_sources(graph, inside, given)
    results = [n.name for n in inside if n.name in graph.outputs or any(u.name not in region for u in graph.users(n.name))]
    inputs = [Node(n, "input", type=graph[n].type, origin=graph[n].origin) for n in given]
    layer = Graph(name, [*inputs, *(graph[n] for n in graph.nodes if n in fixed), *inside], results)
    types = tuple(graph[result].tensor for result in results)
    origin = frozenset().union(*(node.origin for node in inside)) | {"outline_entry"}
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
    wanted = {o for node in inside for o in node.used if o in weights or graph[o].op in ("param", "const")}
    for node in reversed(graph.nodes.values()):
        if node.name in wanted:
            wanted.update(node.used)
    return wanted


def _size_sources(graph: Graph, inside: list[Node], given: list[str]) -> list[str]:
    """Inputs of the model to read the sizes off that no operand of the region shows."""
    need = {s for node in inside for v in node.attrs.values() for s in names_of(v) if not s.startswith("config.")}
    have = {s for name in given for s in plain_symbols(graph[name].type)}
    sources = []
    for node in graph.inputs:
        if (need - have) & plain_symbols(node.type):
            sources.append(node.name)
            have |= plain_symbols(node.type)
    return sources



def _fresh(base: str, taken) -> str:
    name, n = base, 1
    while name in taken:
        n += 1
        name = f"{base}{n}"
    return name
