"""Facts about the values of a graph that several passes ask for."""

from collections.abc import Hashable, Iterator, Mapping

from hf2khc.ir.expr import entry_of, names_of
from hf2khc.ir.graph import CALLS, Graph, Node, Program, callees, first_iterations, join
from hf2khc.ir.types import tensors


def weight_values(graph: Graph) -> frozenset[str]:
    """Values computed from parameters and constants alone, at least one parameter among them."""
    fixed: dict[str, bool] = {}  # name -> whether a parameter is behind it
    for node in graph:
        if node.op in ("param", "const"):
            fixed[node.name] = node.op == "param"
        elif node.op.startswith("ops.") and node.used and all(o in fixed for o in node.used) and not _has_symbols(node):
            fixed[node.name] = any(fixed[o] for o in node.used)
    return frozenset(name for name, has_parameter in fixed.items() if has_parameter)


def sizes_read(node: Node) -> set[str]:
    """The sizes of the inputs that the attributes of a node name."""
    return {s for value in node.attrs.values() for s in names_of(value) if not s.startswith("config.")}


def _has_symbols(node: Node) -> bool:
    """Whether a size of the inputs is in the type; sizes that follow from the config are none."""
    return any(not name.startswith("config.") for t in tensors(node.type) for name in t.symbols)


def has_parameters(program: Program) -> dict[str, bool]:
    """Whether a graph, or one it calls, owns a parameter."""
    found: dict[str, bool] = {}
    for graph in program.callees_first():
        called = (name for node in graph.of(*CALLS) for name in callees(node))
        found[graph.name] = bool(graph.of("param")) or any(found[name] for name in called)
    return found


def repeated_graphs(program: Program) -> set[str]:
    """The graphs of loops and scans: what one iteration gives is what the next one takes, in the same places."""
    return {name for graph in program.graphs.values() for node in graph.of("loop", "scan") for name in callees(node)}


def module_paths(program: Program) -> dict[str, str]:
    """Where each graph's module stands; defined while no graph is called from two places (before graphs are merged)."""
    paths = {program.entry: ""}
    for graph in reversed(program.callees_first()):
        for call in graph.of("call", "scan"):
            paths[str(call.attrs["graph"])] = join(paths[graph.name], str(call.attrs["path"]))
    return paths


def call_sites(program: Program) -> dict[str, tuple[str, str]]:
    """The caller and the call of each graph, by name; defined where `module_paths` is."""
    return {str(c.attrs["graph"]): (g.name, c.name) for g in program.graphs.values() for c in g.of("call")}


def call_depth(graph: str, sites: Mapping[str, tuple[str, str]]) -> int:
    """How many calls lie between the entry and a graph, given the `call_sites`."""
    return 1 + call_depth(sites[graph][0], sites) if graph in sites else 0


def parameters_behind(graph: Graph, name: str) -> frozenset[str]:
    """Names of the parameters a value is computed from."""
    node = graph[name]
    own = frozenset({node.name}) if node.op == "param" else frozenset()
    return own.union(*(parameters_behind(graph, o) for o in node.used))


def spelled_out(graph: Graph, name: str) -> Hashable:
    """A weight expression down to its parameters, equal for two that are spelt alike."""
    node = graph[name]
    attrs = tuple(sorted((key, str(value)) for key, value in node.attrs.items()))
    return name if not node.used else (node.op, attrs, *(spelled_out(graph, o) for o in node.used))


def first_parameter(graph: Graph, node: Node, weights: frozenset[str]) -> str | None:
    """Name of the first parameter that a layer owns, weight expressions looked through.

    What it is called with, which comes first, may be a parameter, too: that of the layer comes before it.
    """

    def parameters(name: str) -> Iterator[str]:
        if graph[name].op == "param":
            yield name
        for operand in graph[name].used:
            yield from parameters(operand)

    own = (*node.used[1:], *node.used[:1])
    return next((parameter for o in own if o in weights for parameter in parameters(o)), None)


def added_bias(graph: Graph, product: Node, weights: frozenset[str], most: int = 1) -> tuple[Node, str | None]:
    """The addition of a bias to `product`, and the bias; `product` itself where there is none.

    The bias lies along the last axes, `most` of them at most.
    """
    added = addition(graph, product)
    shape = graph[added[1]].tensor.shape if added and added[1] in weights else ()
    if not added or not 0 < len(shape) <= most or shape != product.tensor.shape[-len(shape) :]:
        return product, None
    return added


def addition(graph: Graph, node: Node) -> tuple[Node, str] | None:
    """The addition that alone reads a value, and what is added to it; None where something else does."""
    users = graph.users(node.name)
    if graph.uses(node.name) != 1 or not users or users[0].op != "ops.add" or len(users[0].used) != 2:
        return None
    return users[0], next(o for o in users[0].used if o != node.name)


def mentioned_fields(program: Program) -> list[str]:
    """The config fields that attributes and shapes mention, callers before callees, in order of use.

    Of an entry of a list the list.
    """
    found: dict[str, None] = {}
    for graph in reversed(program.callees_first()):
        for node in graph:
            values = [*node.attrs.values(), *(t.shape for t in tensors(node.type))]
            found.update(dict.fromkeys(n for v in values for n in sorted(names_of(v)) if n.startswith("config.")))
    entries = {name: entry_of(name) for name in found}
    return list(dict.fromkeys(entry[0] if entry else name for name, entry in entries.items()))


def constant_paths(program: Program) -> list[str]:
    """Absolute paths of the constants a program reads, loops expanded to their first layer."""
    found: dict[str, None] = {}

    def visit(graph: Graph, prefix: str) -> None:
        for node in graph:
            if node.op == "const":
                found[join(prefix, node.name[1:])] = None
            elif node.op in CALLS:
                for callee, iteration in first_iterations(node).items():
                    start = node.attrs.get("start", "")
                    index = start + iteration if isinstance(start, int) else start
                    visit(program.graphs[callee], join(prefix, str(node.attrs["path"]).replace("{i}", str(index))))

    visit(program.main, "")
    return list(found)
