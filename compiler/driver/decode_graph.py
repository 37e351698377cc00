"""One graph as a function of where its inputs start in a longer sequence."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from hf2khc.driver.decode_cache import Cache
from hf2khc.driver.decode_calls import Calls
from hf2khc.driver.decode_lent import Lent
from hf2khc.driver.decode_positions import HERE, NoCache, Places, Positions
from hf2khc.driver.decode_states import States
from hf2khc.ir.expr import Expr, names_of, substitute
from hf2khc.ir.graph import CALLS, Graph, Node, numbered
from hf2khc.ir.types import Tensor
from hf2khc.write.plan import KEYS, START, UPDATE

if TYPE_CHECKING:
    from hf2khc.driver.decode import _Derivation

# Layers that count positions themselves, with the argument of the call that says where they start.
_COUNTING = {"layers.RotaryEmbedding": "start_index"}
# Operations that take a value for its shape alone.
_LIKE = ("ops.zeros_like", "ops.ones_like", "ops.full_like")
# What a value for all positions is called behind its name, where there is one for those of the inputs, too.
_ALL = "_all"


class DerivedGraph:
    """A graph whose results are needed at the positions of its inputs, or along some axes at all positions.

    A first walk over the graph finds out what is cached and at which positions inputs are needed, a second one builds.

    Args:
        derivation: of the whole program.
        graph: as it was.
        symbol: how many positions there are, as the graph calls it.
        data: the inputs that depend on tokens.
        keys: for every result, the axes along which it is needed at all positions.
        least: along which axes its inputs are there at all positions, asked for or not.
    """

    def __init__(
        self, derivation: "_Derivation", graph: Graph, symbol: str, data: frozenset[str], keys: tuple[Places, ...],
        least: Mapping[str, Places] = MappingProxyType({}),
    ):  # fmt: skip
        self.derivation, self.graph = derivation, graph
        self.positions = Positions(graph, symbol)
        self.data = self._data(data)
        self.inputs: dict[str, set[Places]] = {}
        self.given: dict[str, Places] = {}
        self.cache, self.states = Cache(self), States(self)
        self.starts = self.has_keys = False
        self._walk(keys)
        self.given = {name: least.get(name, HERE).union(*asked) for name, asked in self.inputs.items()}
        self._walk(keys)
        self.result = self._graph(keys)

    @property
    def is_entry(self) -> bool:
        return self.graph.name == self.derivation.program.entry

    @property
    def is_cached(self) -> bool:
        return bool(self.cache.cuts or self.states or self.calls.cached)

    @property
    def has_states(self) -> bool:
        """Whether it keeps a state, at any depth."""
        return bool(self.states) or any(graph.has_states for graph in self.calls.cached.values())

    @property
    def is_indexed(self) -> bool:
        return self.is_cached or self.starts

    def knows(self, sizes: tuple) -> bool:
        """Whether sizes are known before a call."""
        return all(name.startswith("config.") or name in self.graph.parameters for name in names_of(sizes))

    def _walk(self, keys: tuple[Places, ...]) -> None:
        self.made: dict[str, Node] = {}
        self.names: dict[tuple[str, Places], str] = {}
        self.calls, self.lent = Calls(self), Lent(self)
        self.outputs = [self.want(o, k) for o, k in zip(self.graph.outputs, keys, strict=True)]
        if self.states:
            self.outputs[0] = self.states.result(self.outputs[0])

    def _graph(self, keys: tuple[Places, ...]) -> Graph:
        inputs = [replace(n, type=self.positions.type(n, self.given.get(n.name, HERE))) for n in self.graph.inputs]
        nodes = [node for node in self.made.values() if node.op != "input"]
        inputs += [] if self.is_entry else self.lent.inputs(inputs, nodes)
        derived = self.graph.replaced([*inputs, *nodes], outputs=self.outputs)
        # In the code one variable is the new values before the update and all values behind it.
        before = derived.behind(node.name for node in derived.of(UPDATE))
        late = [node for node in derived if node.name not in before and set(node.used) & set(self.cache.cuts)]
        if late or set(self.cache.cuts) & set(self.outputs):
            raise NoCache(f"what {self.graph.name} would cache is needed at the positions of the input, too")
        return derived.renamed({n: n.removesuffix(_ALL) for n in derived.nodes if n.removesuffix(_ALL) not in derived})

    def _data(self, data: frozenset[str]) -> frozenset[str]:
        found = set(data)
        for node in self.graph:
            if any(o in found for o in self._read(node)):
                found.add(node.name)
        return frozenset(found)

    def _read(self, node: Node) -> tuple[str, ...]:
        """The operands whose values matter: a layer may take one for its sizes alone."""
        if self._is_shape(node):
            return ()
        if node.op not in CALLS:
            return node.used
        pairs = [
            (callee.uses(parameter.name), operand)
            for callee in self.derivation.callees(node)
            for parameter, operand in zip(callee.inputs, node.operands, strict=True)
        ]
        return tuple(operand for uses, operand in pairs if uses and operand)

    # Asking for values

    def want(self, name: str, keys: Places) -> str:
        """The name of a value at the positions of the inputs, along `keys` at all positions."""
        key = (name, keys)
        if key not in self.names:
            self.names[key] = self.make(self.graph[name], keys)
        return self.names[key]

    def make(self, node: Node, keys: Places) -> str:
        if node.name in self.positions.weights:
            return self._copied(node)
        if node.op == "input" and not (keys and node.name in self.data):
            return self._input(node, keys)
        if node.name in self.positions.fixed:
            return self.add(replace(node, operands=tuple(o and self.want(o, HERE) for o in node.operands)))
        # With an axis of queries beside the one of keys it is no sequence, but made from two of them.
        if keys and node.name in self.data - self.cache.after and keys == self.positions.axes(node.name):
            return self.cache.value(node, keys)
        if node.op == "input":
            raise NoCache(f"{self.graph.name} needs %{node.name} at all positions")
        if node.op == "ops.arange" and not node.operands:
            return self._count(node, keys)
        if node.op in ("call", "loop", "item"):
            return self.calls.value(node, keys)
        if self._is_shape(node):
            return self._filled(node)
        if node.op == "scan" and node.name in self.data:
            return self.states.scanned(node, keys)
        if node.name in self.data and not keys:
            found = self.states.found(node)
            if found is not None:
                return found
        if not keys and node.op == "ops.get_item" and not self.positions.axes(node.used[0]):
            return self._picked(node)
        return self._computed(node, keys)

    def _copied(self, node: Node) -> str:
        for name in self.graph.behind({node.name}):
            self.made.setdefault(name, self.graph[name])
        self.made = {
            n: self.made[n] for n in self.graph.nodes if n in self.made and n in self.positions.weights
        } | self.made
        return node.name

    def _input(self, node: Node, keys: Places) -> str:
        self.inputs.setdefault(node.name, set()).add(keys)
        given = self.given.get(node.name, keys)
        if given == keys:
            return node.name
        return self._sliced(node, node.name, given, keys)

    def _sliced(self, node: Node, whole: str, given: Places, keys: Places) -> str:
        """A value that is there at all positions along `given`, cut to those of the inputs where that is enough."""
        if node.name in self.data or not keys <= given:
            raise NoCache(f"%{node.name} of {self.graph.name} is needed at other positions than it is there")
        self.starts = True
        cut = given - keys
        shape = self.positions.type(node, keys)
        assert isinstance(shape, Tensor)
        starts = tuple(Expr(START) if axis in cut else 0 for axis in range(shape.rank))
        attrs = {"start_indices": starts, "shape": shape.shape}
        name = self._name(node, keys) if node.op != "input" else self.graph.fresh(f"{node.name}_here")
        return self.add(Node(name, "ops.slice", (whole,), attrs, shape, node.loc, node.origin))

    def _count(self, node: Node, keys: Places) -> str:
        stop, start, step = (node.attrs.get(k) for k in ("stop", "start", "step"))
        counts = isinstance(stop, Expr) and stop.text == self.positions.symbol
        if not (counts and start in (0, None) and step in (1, None)):
            return self._whole(node, keys)
        if keys:
            self.has_keys = True
            return self.add(replace(self.typed(node, keys), attrs={**node.attrs, "stop": Expr(KEYS)}))
        self.starts = True
        count = replace(node, name=self.graph.fresh(node.name, self.made))
        self.add(count)
        return self.add(replace(node, op="ops.add", operands=(count.name,), attrs={"x2": Expr(START)}))

    def _is_shape(self, node: Node) -> bool:
        """Whether a value of no position is made like another one, of which its shape alone matters."""
        return node.op in _LIKE and not self.positions.axes(node.name) and node.name not in self.positions.weights

    def _filled(self, node: Node) -> str:
        attrs = {**node.attrs, "shape": node.tensor.shape, "dtype": node.tensor.dtype}
        return self.add(replace(node, op=node.op.removesuffix("_like"), operands=(), attrs=attrs))

    def _picked(self, node: Node) -> str:
        """The first rows of a table: from the start on."""
        if node.name in self.positions.weights or not self.positions.axes(node.name):
            return self._computed(node, HERE)
        starts = self.positions.first_rows(node)
        if starts is None:
            return self._whole(node, HERE)
        self.starts = True
        whole = self.want(node.used[0], HERE)
        attrs = {"start_indices": starts, "shape": node.tensor.shape}
        return self.add(replace(node, op="ops.slice", operands=(whole,), attrs=attrs))

    def _computed(self, node: Node, keys: Places) -> str:
        operands = self.positions.operands(node, keys)
        attrs = None if operands is None else self.positions.attributes(node, keys)
        if operands is None or attrs is None:
            return self._whole(node, keys)
        if node.op in _COUNTING and not keys:
            self.starts = True
            attrs[_COUNTING[node.op]] = Expr(START)
        self.has_keys |= bool(keys) and any(KEYS in names_of(value) for value in attrs.values())
        names = tuple(o and self.want(o, places) for o, places in zip(node.operands, operands, strict=True))
        return self.add(replace(self.typed(node, keys), operands=names, attrs=attrs))

    def _whole(self, node: Node, keys: Places) -> str:
        """A value of no token, computed for all positions and cut to those that are needed."""
        if node.name in self.data or isinstance(node.type, tuple):
            what = f"{node.op} at {node.loc}" if node.loc else node.op
            raise NoCache(f"{what} in {self.graph.name} mixes positions")
        every = self.positions.axes(node.name)
        if keys != every:
            return self._sliced(node, self.want(node.name, every), every, keys)
        longer = {self.positions.symbol: Expr(KEYS)}
        names = tuple(o and self.want(o, self.positions.axes(o)) for o in node.operands)
        attrs = {key: substitute(value, longer) for key, value in node.attrs.items()}
        self.has_keys |= any(KEYS in names_of(value) for value in attrs.values())
        return self.add(replace(self.typed(node, keys), operands=names, attrs=attrs))

    # Names and types

    def add(self, node: Node) -> str:
        self.made[node.name] = node
        return node.name

    def _name(self, node: Node, keys: Places) -> str:
        return numbered(f"{node.name}{_ALL}", self.made) if keys else node.name

    def typed(self, node: Node, keys: Places) -> Node:
        return replace(node, name=self._name(node, keys), type=self.positions.type(node, keys))
