"""Give parameters that no one layer can hold to everything that reads them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import networkx as nx

from hf2khc.ir.analysis import call_depth, call_sites, module_paths, parameters_behind, spelled_out, weight_values
from hf2khc.ir.graph import Graph, Node, Program, join
from hf2khc.ir.inline import leaf_name
from hf2khc.ir.types import Tensor


def share_parameters(program: Program) -> Program:
    """Read a parameter that several computations share, and no one layer holds, as a plain weight of the module.

    A layer of Keras owns its variables. Where a codebook is both looked up in and normalised, where a table is spelt in
    several ways, or where two modules read one bare parameter, no layer can own it: the layers on it become operations,
    and the module that calls all of its readers hands it to them.

    Before:

        graph Codebook(%ids: i64[batch, seq]) {
          param @weight: f32[9, 4]
          %x: f32[batch, seq, 4] = layers.Embedding(%ids, @weight, input_dim=9, output_dim=4)
          %mean: f32[4] = ops.mean(@weight, axis=0)
          %y: f32[batch, seq, 4] = ops.subtract(%x, %mean)
          return %y
        }

        entry Codebook

    After:

        graph Codebook(%ids: i64[batch, seq]) {
          param @weight: f32[9, 4]
          %x: f32[batch, seq, 4] = ops.take(@weight, %ids, axis=0)
          %mean: f32[4] = ops.mean(@weight, axis=0)
          %y: f32[batch, seq, 4] = ops.subtract(%x, %mean)
          return %y
        }

        entry Codebook
    """
    shared = _conflicts(program)
    if not shared:
        return program
    program = _bare(program, shared)
    while (found := _deepest(program, shared)) is not None:
        program = _handed(program, *found)
    return program


@dataclass(frozen=True)
class _Read:
    """A computation outside of weight expressions that reads weights.

    Args:
        graph: that holds it.
        module: path of the graph's module.
        node: the computation.
        values: the weights and weight expressions it reads.
        parameters: absolute paths of what is behind them.
    """

    graph: Graph
    module: str
    node: Node
    values: tuple[str, ...]
    parameters: frozenset[str]

    @property
    def layer(self) -> tuple | None:
        """The layer of Keras it is a call of, `None` for what is no layer.

        A module that is called twice may be two graphs, and has one set of layers.
        """
        if self.node.level != "layers":
            return None
        attrs = {k: v for k, v in self.node.attrs.items() if k != "reverse"}
        weights = tuple(spelled_out(self.graph, value) for value in self.values)
        return self.module, self.node.op, weights, repr(sorted(attrs.items()))


def _reads(program: Program) -> list[_Read]:
    paths, reads = module_paths(program), []
    for graph in program.callees_first():
        weights = weight_values(graph)
        for node in graph:
            values = () if node.name in weights else tuple(dict.fromkeys(o for o in node.used if o in weights))
            if values:
                behind = frozenset().union(*(parameters_behind(graph, value) for value in values))
                module = paths[graph.name]
                reads.append(_Read(graph, module, node, values, frozenset(join(module, p[1:]) for p in behind)))
    return reads


def _conflicts(program: Program) -> frozenset[str]:
    """The parameters that layers and other computations share, or several modules, or layers as several tables."""
    reads, sizes = _reads(program), _sizes(program)
    linked = nx.Graph()
    for read in reads:
        linked.add_nodes_from(read.parameters)
        if read.layer is not None:
            nx.add_path(linked, sorted(read.parameters))
    found: set[str] = set()
    for parameters in nx.connected_components(linked):
        here = [read for read in reads if read.parameters & parameters]
        layers = {read.layer: read for read in here if read.layer is not None}
        modules = {read.module for read in here if read.layer is None}
        held = sum(_elements(read.graph, value) for read in layers.values() for value in read.values)
        conflict = len(modules) > 1 or (modules and layers) or held > sum(sizes[p] for p in parameters)
        if conflict and all(read.node.op in _BARE for read in layers.values()):
            found |= parameters
    return frozenset(found)


def _sizes(program: Program) -> dict[str, int]:
    """The number of elements of each parameter."""
    paths = module_paths(program)
    return {
        join(paths[graph.name], node.name[1:]): _elements(graph, node.name)
        for graph in program.graphs.values()
        for node in graph.of("param")
    }


def _elements(graph: Graph, name: str) -> int:
    return math.prod(int(str(dim)) for dim in graph[name].tensor.shape)


def _bare(program: Program, shared: frozenset[str]) -> Program:
    """The layers on shared parameters as operations."""
    graphs = dict(program.graphs)
    for read in _reads(program):
        if read.layer is not None and read.parameters & shared:
            graph = graphs[read.graph.name]
            graphs[graph.name] = graph.rewired(_operations(graph, read.node))
    return program.with_graphs(graphs.values())


def _operations(graph: Graph, layer: Node) -> list[Node]:
    """A layer as operations; the last of them has its name."""
    x, kernel, *bias = layer.used
    title = graph.fresh(f"{layer.name}_product") if bias else layer.name
    op, operands, attrs, *before = _BARE[layer.op](graph, layer, x, kernel)
    made = [*before, Node(title, op, operands, attrs, layer.type, layer.loc, layer.origin | {"share_parameters"})]
    if bias:
        made.append(replace(made[-1], name=layer.name, op="ops.add", operands=(title, *bias), attrs={}))
    return made


def _einsum(graph: Graph, layer: Node, x: str, kernel: str) -> tuple:
    return "ops.einsum", (x, kernel), {"subscripts": layer.attrs["equation"]}


def _matmul(graph: Graph, layer: Node, x: str, kernel: str) -> tuple:
    return "ops.matmul", (x, kernel), {}


def _take(graph: Graph, layer: Node, x: str, table: str) -> tuple:
    return "ops.take", (table, x), {"axis": 0}


def _reversible(graph: Graph, layer: Node, x: str, table: str) -> tuple:
    if not layer.attrs.get("reverse"):
        return _take(graph, layer, x, table)
    type_ = Tensor(graph[table].tensor.dtype, graph[table].tensor.shape[::-1])
    kernel = Node(graph.fresh(f"{layer.name}_kernel"), "ops.transpose", (table,), {}, type_, layer.loc, layer.origin)
    return *_matmul(graph, layer, x, kernel.name), kernel


# What a layer on a weight of somebody else's computes, spelt out.
_BARE: Mapping[str, Callable[[Graph, Node, str, str], tuple]] = {
    "layers.Dense": _matmul,
    "layers.EinsumDense": _einsum,
    "layers.Embedding": _take,
    "layers.ReversibleEmbedding": _reversible,
}


def _deepest(program: Program, shared: frozenset[str]) -> tuple[str, Graph] | None:
    """A shared parameter that several graphs read, and the one of them that is the farthest from the model."""
    paths, sites = module_paths(program), call_sites(program)
    readers = {path: [g for g in program.graphs.values() if _names(g, paths, path)] for path in sorted(shared)}
    several = [(path, graph) for path, graphs in readers.items() for graph in graphs if len(graphs) > 1]
    return max(several, key=lambda reader: call_depth(reader[1].name, sites), default=None)


def _names(graph: Graph, paths: Mapping[str, str], path: str) -> list[str]:
    """What a graph calls a parameter: by its own path, by that from the root, or both."""
    return [node.name for node in graph.of("param") if join(paths[graph.name], node.name[1:]) == path]


def _handed(program: Program, path: str, callee: Graph) -> Program:
    """The program in which the caller of a graph hands a parameter to it."""
    paths = module_paths(program)
    name, site = call_sites(program)[callee.name]
    caller, call = program.graphs[name], program.graphs[name][site]
    names = _names(callee, paths, path)
    parameter = callee[names[0]]
    given = Node(callee.fresh(_title(path)), "input", type=parameter.type, origin=call.origin)
    inside = callee.replaced([*callee.inputs, given, *(node for node in callee if node.op != "input")])
    inside = inside.rewired(redirect=dict.fromkeys(names, given.name))
    leaf = leaf_name(names[0], str(call.attrs["path"]), root=caller.name == program.entry)
    leaf = next(iter(_names(caller, paths, path)), leaf)
    outside = caller.rewired([replace(parameter, name=leaf), replace(call, operands=(*call.operands, leaf))])
    changed = {callee.name: inside, caller.name: outside}
    return program.with_graphs(changed.get(graph.name, graph) for graph in program.graphs.values())


def _title(path: str) -> str:
    """What a parameter is called as a value: `eoi_embedding`, `codebook_weight`."""
    parts = path.split(".")
    return "_".join(parts[-2:] if parts[-1] in ("weight", "bias") else parts[-1:])
