"""The cached step of a causal model: the same program with another start, derived."""

from collections.abc import Collection, Mapping

from hf2khc.driver.decode_graph import DerivedGraph
from hf2khc.driver.decode_positions import NoCache
from hf2khc.ir.expr import names_of
from hf2khc.ir.graph import Graph, Node, Program, callees
from hf2khc.ir.order import asked_order, ordered
from hf2khc.ir.types import plain_symbols
from hf2khc.write.plan import KEYS, Decoding


def derive_decoding(program: Program, masks: Collection[str], values: Mapping[str, object]) -> tuple[Program, Decoding]:
    """The program of a causal model as a function of where its inputs start in a longer sequence.

    Every value has an axis of positions or none. Backwards from the outputs it is asked for which positions a value is
    needed: those of the inputs alone, or those of the whole sequence up to now. Operations that treat every position
    by itself hand the question on. What depends on sizes alone is computed for whatever positions are asked for: a
    count of positions begins at the start, or runs over all keys. What depends on tokens is computed for those of the
    inputs; where a product sums over positions, and all are needed, the value comes out of a cache, into which the new
    ones go first. So nothing but the operands of an attention is cached, as many heads of them as there are.

    Args:
        program: at the keras level, sizes as expressions.
        masks: the inputs that say which tokens count. In a cached step all do: padding stands behind them.
        values: of config fields.

    Raises:
        NoCache: where some operation mixes positions in another way. The reason is its text.
    """
    derivation, main = _Derivation(program, values), program.main
    entry = derivation.derived(main, _data(main, masks), (frozenset(),) * len(main.outputs))
    if set(entry.result.nodes) - set(main.nodes):
        raise NoCache("the model itself, and no layer of it, computes with positions")
    cached = frozenset(name for name, graph in derivation.graphs.items() if graph.is_cached)
    if not derivation.shape:
        raise NoCache("no layer sums over positions")
    # The entry computes with no sizes: those of its values do not matter.
    graphs = {name: _in_order(graph.result) for name, graph in derivation.graphs.items()} | {main.name: main}
    indexed = frozenset(name for name, graph in derivation.graphs.items() if graph.is_indexed)
    layers = tuple(node.name for node in main.of("call", "loop") if cached.intersection(callees(node)))
    return program.with_graphs(graphs.values()), Decoding(cached, indexed, layers, derivation.shape)


def _in_order(graph: Graph) -> Graph:
    """The graph in the order of a program; how long the sequence is has to be known before it is asked for."""
    known = any(KEYS in plain_symbols(node.type) for node in graph.inputs)
    return ordered(graph, asked_order(graph)) if known else graph


def _data(graph: Graph, masks: Collection[str]) -> frozenset[str]:
    """The one input that holds the sequence itself."""
    found = [node for node in graph.inputs if node.name not in masks]
    if len(found) != 1 or found[0].tensor.rank != 2 or found[0].tensor.is_floating:
        raise NoCache("the model takes more than token ids and masks")
    return frozenset({found[0].name})


class _Derivation:
    """Derives graphs, each in one way."""

    def __init__(self, program: Program, values: Mapping[str, object]):
        self.program = program
        self.values = values
        self.graphs: dict[str, DerivedGraph] = {}
        self.asked: dict[str, tuple] = {}
        self.shape: tuple = ()

    def derived(self, graph: Graph, data: frozenset[str], keys: tuple[frozenset[int], ...]) -> DerivedGraph:
        """A graph, derived for results at these positions.

        Args:
            graph: of the program.
            data: the inputs that depend on tokens.
            keys: for every result, the axes along which it is needed at all positions.
        """
        if self.asked.setdefault(graph.name, (data, keys)) != (data, keys):
            raise NoCache(f"{graph.name} is needed at the positions of the input, and at all positions")
        if graph.name not in self.graphs:
            self.graphs[graph.name] = DerivedGraph(self, graph, data, keys)
            self._note(self.graphs[graph.name].shape)
        return self.graphs[graph.name]

    def callees(self, node: Node) -> list[Graph]:
        return [self.program.graphs[name] for name in callees(node)]

    def _note(self, shape: tuple) -> None:
        if not shape:
            return
        if self.shape and tuple(map(str, shape)) != tuple(map(str, self.shape)):
            raise NoCache("layers have caches of different shapes")
        if any(not name.startswith("config.") and name not in ("batch", KEYS) for name in names_of(shape)):
            raise NoCache("layers have caches of different shapes")
        self.shape = shape
