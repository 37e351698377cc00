"""The cached step of a causal model: the same program with another start, derived."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType

from hf2khc.driver.decode_graph import DerivedGraph
from hf2khc.driver.decode_once import Fixed, compute_once
from hf2khc.driver.decode_positions import HERE, NoCache, Places
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
    ones go first. So of an attention nothing but its operands is cached, as many heads of them as there are. Of a scan
    that is what it carried last, of a convolution the last entries of its sequence: states (`decode_states.py`).

    Args:
        program: at the keras level, sizes as expressions.
        masks: the inputs that say which tokens count. In a cached step all do: padding stands behind them.
        values: of config fields.

    Raises:
        NoCache: where some operation mixes positions in another way. The reason is its text.
    """
    main = program.main
    symbol = _positions(main)
    data = _data(main, masks, symbol)
    derivation = _Derivation(program, values, main[next(iter(data))], _mask(main, masks, symbol))
    entry = derivation.derived(main, symbol, data, (frozenset(),) * len(main.outputs))
    if set(entry.result.nodes) - set(main.nodes):
        raise NoCache("the model itself, and no layer of it, computes with positions")
    cached = frozenset(name for name, graph in derivation.graphs.items() if graph.is_cached)
    if not cached:
        raise NoCache("no layer sums over positions")
    # The entry computes with no sizes: those of its values do not matter, only what its layers are given.
    main = main.replaced(replace(node, operands=_operands(node, entry)) for node in main)
    derived = {name: _in_order(graph.result) for name, graph in derivation.graphs.items()}
    program = program.with_graphs({**program.graphs, **derived, main.name: main}.values())
    for graph in derived.values():
        _require_agreement(graph, derived)
    indexed = frozenset(name for name, graph in derivation.graphs.items() if graph.is_indexed)
    layers = tuple(node.name for node in main.of("call", "loop") if cached.intersection(callees(node)))
    encoded = _encoded(main, entry.positions.fixed)
    if encoded and entry.has_states:
        raise NoCache("a decoder behind an encoder keeps states")
    fixed = {name: Fixed(graph.positions.fixed, graph.positions.weights) for name, graph in derivation.graphs.items()}
    program, once = compute_once(program, fixed, layers, encoded, values) if encoded else (program, {})
    whole = frozenset(name for name, places in entry.given.items() if places)
    return program, Decoding(cached, indexed, layers, encoded, once, entry.has_states, whole)


def _operands(node: Node, entry: DerivedGraph) -> tuple[str | None, ...]:
    """What a node of the entry is given, with inputs of the model for a layer that reads a size from them."""
    derived = entry.result.nodes.get(node.name)
    more = derived.operands[len(node.operands) :] if derived and node.op in ("call", "loop") else ()
    return (*node.operands, *more)


def _require_agreement(graph: Graph, derived: Mapping[str, Graph]) -> None:
    """What a graph hands to others is what they take: one that several call was derived anew for the last of them."""
    for node in graph.of("call", "loop"):
        for callee in (derived[name] for name in callees(node) if name in derived):
            taken = [KEYS in names_of(parameter.tensor.shape) for parameter in callee.inputs]
            given = [bool(o) and KEYS in names_of(graph[o or ""].tensor.shape) for o in node.operands]
            whole = zip(taken, given, node.operands, strict=False)
            if len(taken) != len(given) or any(o and t != g for t, g, o in whole):
                raise NoCache(f"{callee.name} is needed at the positions of the input, and at all positions")


def _in_order(graph: Graph) -> Graph:
    """The graph in the order of a program; how long the sequence is has to be known before it is asked for."""
    known = any(KEYS in plain_symbols(node.type) for node in graph.inputs)
    return ordered(graph, asked_order(graph)) if known else graph


def _positions(graph: Graph) -> str:
    """The symbol for the number of positions of the outputs."""
    sizes = {str(graph[name].tensor.shape[1]) for name in graph.outputs if graph[name].tensor.rank > 1}
    if len(sizes) != 1:
        raise NoCache("the results of the model are no one sequence")
    return sizes.pop()


def _data(graph: Graph, masks: Collection[str], symbol: str) -> frozenset[str]:
    """The one input that holds the sequence itself."""
    found = [node for node in graph.inputs if node.name not in masks and symbol in node.tensor.symbols]
    if len(found) != 1 or found[0].tensor.rank != 2 or found[0].tensor.is_floating:
        raise NoCache("the model takes more than token ids and masks")
    return frozenset({found[0].name})


def _mask(graph: Graph, masks: Collection[str], symbol: str) -> Node | None:
    """The mask of the sequence, which is as long as all of it."""
    found = (node for node in graph.inputs if node.name in masks and symbol in node.tensor.symbols)
    return next((node for node in found if node.tensor.rank == 2), None)


def _encoded(graph: Graph, fixed: Collection[str]) -> str:
    """The value that an encoder hands to every step; empty where the model has no encoder.

    Masks made of nothing but the encoder's own mask are made again in every step: they cost nothing.
    """
    if not any(node.name in fixed for node in graph.inputs):
        return ""
    read = {o for node in graph if node.name not in fixed for o in node.used if o in fixed}
    found = [name for name in read if any(graph[n].op in ("call", "loop") for n in graph.behind({name}))]
    if len(found) != 1:
        raise NoCache("an encoder hands over more than one value")
    return found[0]


class _Derivation:
    """Derives graphs, each in one way.

    Args:
        program: of the model.
        values: of config fields.
        tokens: the input that holds them.
        mask: the input that is as long as the whole sequence, if there is one.
    """

    def __init__(self, program: Program, values: Mapping[str, object], tokens: Node, mask: Node | None):
        self.program, self.tokens, self.mask = program, tokens, mask
        self.values = values
        self.graphs: dict[str, DerivedGraph] = {}
        self.asked: dict[str, tuple] = {}

    def derived(
        self, graph: Graph, symbol: str, data: frozenset[str], keys: tuple[Places, ...],
        least: Mapping[str, Places] = MappingProxyType({}),
    ) -> DerivedGraph:  # fmt: skip
        """A graph, derived for results at these positions.

        Args:
            graph: of the program.
            symbol: how many positions there are, as the graph calls it.
            data: the inputs that depend on tokens.
            keys: for every result, the axes along which it is needed at all positions.
            least: along which axes inputs are there at all positions, asked for or not.
        """
        asked = (symbol, data, keys)
        if self.asked.setdefault(graph.name, asked) != asked:
            raise NoCache(f"{graph.name} is needed at the positions of the input, and at all positions")
        known = self.graphs.get(graph.name)
        if known is None or any(known.given.get(name, HERE) != places for name, places in least.items()):
            self.graphs[graph.name] = DerivedGraph(self, graph, symbol, data, keys, least)
        return self.graphs[graph.name]

    def callees(self, node: Node) -> list[Graph]:
        return [self.program.graphs[name] for name in callees(node)]
