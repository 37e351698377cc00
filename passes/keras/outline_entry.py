"""Move what a functional model cannot hold out of its body and into layers."""

from dataclasses import replace

import networkx as nx

from hf2khc.ir.analysis import sizes_read, weight_values
from hf2khc.ir.graph import CALLS, LEAVES, Graph, Node, Program, callees
from hf2khc.ir.outline import class_prefix, outline, unused
from hf2khc.ir.types import tensors


def outline_entry(program: Program) -> Program:
    """Put computations with sizes, constants or bare parameters in the model's own body into layers of the package.

    A KerasHub backbone is a functional model: sizes must be read inside a layer's `call`, and parameters belong to
    layers. Keras traces no layer without an argument: what stands apart from every input is handed the first one.

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
    entry, prefix = apart(program.main), class_prefix(program)
    graphs = dict(program.graphs)
    for region in regions(entry):
        cls = f"{prefix}{_role(entry, region)}"
        name = unused(cls, graphs)
        entry, layer = outline(entry, region, name, cls)
        graphs[name] = layer
    graphs[entry.name] = entry
    _feed(graphs, entry)
    return program.with_graphs(graphs.values())


def _feed(graphs: dict[str, Graph], entry: Graph) -> None:
    """Hand the first input to layers that take none, where nothing but the model's own body calls them."""
    inner = {name for g in graphs.values() if g is not entry for call in g.of(*CALLS) for name in callees(call)}
    hungry = [node for node in entry.of("call") if not node.operands and node.attrs["graph"] not in inner]
    if not hungry or not entry.inputs:
        return
    first = entry.inputs[0]
    for name in dict.fromkeys(str(node.attrs["graph"]) for node in hungry):
        callee = graphs[name]
        made = Node(callee.fresh(first.name), "input", type=first.type, origin=first.origin)
        graphs[name] = callee.replaced([made, *callee])
    graphs[entry.name] = entry.rewired([replace(node, operands=(first.name,)) for node in hungry])


def regions(graph: Graph) -> list[frozenset[str]]:
    """Connected computations that must leave the body, each between two layers: no path leaves one and comes back."""
    weights = weight_values(graph)
    tables = _tables(graph, weights)
    data = [
        node
        for node in graph
        if node.name in tables or (_operation(graph, node).op.startswith("ops.") and node.name not in weights)
    ]
    depth = _depths(graph, {node.name for node in data}, weights)
    links = nx.Graph()
    links.add_nodes_from(node.name for node in data)
    links.add_edges_from((o, n.name) for n in data for o in n.used if o in links and depth[o] == depth[n.name])
    heavy = {node.name for node in data if _needs_layer(graph, node, weights)}
    regions = [set(region) for region in nx.connected_components(links) if region & heavy]
    for region in regions:
        region.update(_absorbed(graph, region, weights))
    order = {name: i for i, name in enumerate(graph.nodes)}
    return sorted(map(frozenset, regions), key=lambda region: min(map(order.__getitem__, region)))


def apart(graph: Graph) -> Graph:
    """With constant positions once for each that reads them, so that two tables are not one region for that alone."""
    made: list[Node] = []
    changed: dict[str, Node] = {}
    for node in graph:
        if node.op.startswith("ops.") and not node.used and not sizes_read(node):
            for user in graph.users(node.name)[1:]:
                copy = replace(node, name=graph.fresh(f"{node.name}_{user.name}"))
                made.append(copy)
                user = changed.get(user.name, user)
                operands = tuple(copy.name if o == node.name else o for o in user.operands)
                changed[user.name] = replace(user, operands=operands)
    return graph.rewired([*made, *changed.values()]) if made else graph


def _tables(graph: Graph, weights: frozenset[str]) -> frozenset[str]:
    """Layers that read nothing of the inputs, whole tables, and so are no layers of a functional model."""
    free: set[str] = set()
    for node in graph:
        if node.name in weights or node.op in ("input", "param") or sizes_read(node):
            continue
        if all(o in free for o in node.used if o not in weights):
            free.add(node.name)
    tables = (graph[name] for name in free if graph[name].op.startswith("layers."))
    return frozenset(node.name for node in tables if not _shares(graph, node, weights))


def _shares(graph: Graph, layer: Node, weights: frozenset[str]) -> bool:
    """Whether another layer stands on the same parameters: both are calls of one, which the model's own body holds."""
    behind = graph.behind(o for o in layer.used if o in weights)
    return any(o in behind for node in graph if node.level == "layers" and node != layer for o in node.used)


def _operation(graph: Graph, node: Node) -> Node:
    """What a value is a result of; one of several results belongs with the others."""
    return graph[node.used[0]] if node.op == "item" else node


def _depths(graph: Graph, data: set[str], weights: frozenset[str]) -> dict[str, int]:
    """How many layers stand on the longest path before each value; what reads nothing stands with its first user."""
    depth: dict[str, int] = {}
    free: set[str] = set()
    for node in graph:
        before = [
            depth[o] + (o not in data and graph[o].op not in LEAVES) for o in node.used if o not in free | weights
        ]
        depth[node.name] = max(before, default=0)
        if node.name in data and not before:
            free.add(node.name)
    for name in sorted(free, key=list(graph.nodes).index, reverse=True):
        depth[name] = min((depth[user.name] for user in graph.users(name)), default=0)
    return depth


def _needs_layer(graph: Graph, node: Node, weights: frozenset[str]) -> bool:
    fixed = any(o in weights or graph[o].op == "const" for o in node.used)
    return bool(sizes_read(node)) or fixed or not node.used


def _absorbed(graph: Graph, region: set[str], weights: frozenset[str]) -> set[str]:
    """Layers that read nothing but the region: a table of positions belongs with the positions."""
    found = set()
    for name in region:
        for user in graph.users(name):
            data = [o for o in user.used if o not in weights]
            if user.op.startswith("layers.") and all(o in region for o in data) and not _shares(graph, user, weights):
                found.add(user.name)
    return found


def _role(graph: Graph, region: frozenset[str]) -> str:
    if any(graph[name].op == "layers.Embedding" for name in region):
        return "PositionEmbedding"
    results = [name for name in region if name in graph.outputs or any(u.name not in region for u in graph.users(name))]
    if all(t.dtype == "bool" for name in results for t in tensors(graph[name].type)):
        return "AttentionMask"
    return "Outputs" if any(name in graph.outputs for name in results) else "Inputs"
