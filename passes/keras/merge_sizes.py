"""Merge graphs that differ in sizes alone."""

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from hf2khc.ir.expr import Expr, entry_of
from hf2khc.ir.graph import CALLS, Graph, Node, Program, callees, numbered
from hf2khc.ir.types import Tensor, Type
from hf2khc.passes.hub.merging import Merging, canonical, numbered_dim, numbered_symbols
from hf2khc.passes.keras.name_graphs import name_graphs
from hf2khc.passes.keras.vocabulary import FIELD_NAMES

# Numbers that say what is computed, and no size.
_FIXED = frozenset({"axes", "axis", "carry", "index", "over", "permute"})
# Names that a call has for something else.
_WORDS = {
    "count": "num_layers", "start": "first_layer", "newshape": "size", "shape": "size", "key": "size", "stop": "size",
    "x1": "number", "x2": "number",
}  # fmt: skip
# Axes of projected heads, by their letters in an equation.
_AXES = {"u": "num_heads", "v": "num_key_value_heads", "h": "head_dim", "m": "hidden_dim"}
_KEPT = frozenset({"batch", "seq", "name", "dtype", "graph", "path"})


def merge_sizes(program: Program, values: Mapping[str, object] = MappingProxyType({})) -> Program:
    """One Graph for modules of one class that differ in their sizes: the stages of a convolutional network.

    Each number that differs, in an attribute or in a shape, becomes a parameter of the graph, given by each call. Runs
    on the program whose sizes are expressed by the config, so that what is equal at one config alone stays apart.
    `values` are what its names stand for there.

    Before:

        graph Block(%x: f32[batch, 8]) {
          param @kernel: f32[8, 4]
          %y: f32[batch, 4] = layers.Dense(%x, @kernel, units=4, use_bias=false)
          return %y
        }

        graph BlockB(%x: f32[batch, 4]) of Block {
          param @kernel: f32[4, 6]
          %y: f32[batch, 6] = layers.Dense(%x, @kernel, units=6, use_bias=false)
          return %y
        }

        graph Model(%x: f32[batch, 8]) {
          %a: f32[batch, 4] = call(%x, graph="Block", path="a")
          %b: f32[batch, 6] = call(%a, graph="BlockB", path="b")
          return %b
        }

        entry Model

    After:

        graph Block<units, size>(%x: f32[batch, size]) {
          param @kernel: f32[size, units]
          %y: f32[batch, units] = layers.Dense(%x, @kernel, units=units, use_bias=false)
          return %y
        }

        graph Model(%x: f32[batch, 8]) {
          %a: f32[batch, 4] = call(%x, graph="Block", path="a", units=4, size=8)
          %b: f32[batch, 6] = call(%a, graph="Block", path="b", units=6, size=4)
          return %b
        }

        entry Model
    """
    merging = Merging(_pattern, _parametrised)
    kinds = _kinds(program)
    for graph in program.callees_first():
        merging.add(graph, alone=graph.name in kinds)
    merged = program.with_graphs(merging.finished())
    return program if len(merged.graphs) == len(program.graphs) else name_graphs(merged)


def _kinds(program: Program) -> set[str]:
    """The graphs that are one kind of layer among others in a loop."""
    loops = (node for graph in program.graphs.values() for node in graph.of("loop"))
    return {name for node in loops if isinstance(node.attrs["graph"], tuple) for name in callees(node)}


def _pattern(graph: Graph, node: Node, symbols: Mapping[str, int]) -> Hashable:
    """All but numbers that differ from config to config, in attributes and in shapes."""
    known = frozenset(graph.parameters)
    attrs = tuple(
        (key, repr(value) if key in _FIXED else _value_pattern(value, known, symbols))
        for key, value in sorted(node.attrs.items())
        if key != "graph"
    )
    types = node.type if isinstance(node.type, tuple) else (node.type,)
    return attrs, tuple((t.dtype, _value_pattern(t.shape, known, symbols)) for t in types)


def _value_pattern(value, known: frozenset[str], symbols: Mapping[str, int]) -> Hashable:
    if isinstance(value, tuple):
        return tuple(_value_pattern(part, known, symbols) for part in value)
    if isinstance(value, Expr):
        return None if _is_given(value, known) else numbered_dim(value, symbols)
    return repr(value) if isinstance(value, bool | str) or value is None else None


def _is_given(value: Expr, known: frozenset[str]) -> bool:
    """Whether every instance knows the number: it hangs on no size of the inputs."""
    return all(name.startswith("config.") or name in known for name in value.names)


def _parametrised(group: Sequence[Graph]) -> tuple[Graph, list[dict[str, object]]]:
    """The one graph that stands for a group, and what each member gives for its parameters."""
    columns, base = _Columns(group), group[0]
    rows = list(zip(*map(canonical, group), strict=True))
    # Layers first, and attributes before types: they have names for what others only repeat.
    attrs: dict[str, dict[str, object]] = {}
    for row in sorted(rows, key=lambda row: _rank(row[0])):
        attrs[row[0].name] = {
            key: columns.value([m.attrs[key] for m in row], _words(row[0], key)) for key in row[0].attrs
        }
    types = [_type([m.type for m in row], columns) for row in rows]
    nodes = {
        row[0].name: replace(row[0], attrs=attrs[row[0].name], type=type_)
        for row, type_ in zip(rows, types, strict=True)
    }
    graph = base.replaced([nodes[node.name] for node in base], parameters=(*base.parameters, *columns.names.values()))
    return graph, [dict(zip(columns.names.values(), member, strict=True)) for member in columns.members()]


def _type(types: list[Type], columns: "_Columns") -> Type:
    if isinstance(types[0], tuple):
        return tuple(_type(list(parts), columns) for parts in zip(*types, strict=True))  # type: ignore[arg-type, misc]
    shapes = [t.shape for t in types if isinstance(t, Tensor)]
    return Tensor(types[0].dtype, columns.value(shapes, "size"))


def _rank(node: Node) -> int:
    return 0 if node.op.startswith("layers.") else 1 if node.op in CALLS else 2


def _words(node: Node, key: str) -> str | tuple[str, ...]:
    """What an attribute that becomes a parameter is called; of a tuple each entry, where they differ in meaning."""
    if node.op == "layers.EinsumDense" and key == "output_shape":
        result = str(node.attrs["equation"]).partition("->")[2]
        return tuple(_AXES.get(letter, "size") for letter in result[1:])
    word = re.sub(r"_\d+$", "", key)
    return _WORDS.get(word, word)


class _Columns:
    """What differs in a group: one value for each member, by the name of the parameter that it becomes."""

    def __init__(self, group: Sequence[Graph]):
        self.count = len(group)
        self.known = frozenset(group[0].parameters)
        self.symbols = {name for graph in group for name in numbered_symbols(graph)}
        self.names: dict[tuple, str] = {}

    def members(self) -> list[tuple]:
        """The values of each member, in the order of the names."""
        return [tuple(column[place] for column in self.names) for place in range(self.count)]

    def value(self, column: list, words: str | tuple[str, ...]):
        """The value that stands for those of all members.

        Args:
            column: of each member.
            words: names for the parameters that it becomes: for all of them, or for each entry of a tuple.
        """
        if all(type(v) is type(column[0]) and v == column[0] for v in column):
            return column[0]
        if isinstance(column[0], tuple):
            entries = words if isinstance(words, tuple) else (words,) * len(column[0])
            return tuple(
                self.value(list(parts), word) for parts, word in zip(zip(*column, strict=True), entries, strict=True)
            )
        if isinstance(column[0], Expr) and not _is_given(column[0], self.known):
            return column[0]  # each binds the same size, by a name of its own
        values = tuple(column)
        if values not in self.names:
            taken = {*self.names.values(), *self.known, *self.symbols, *_KEPT}
            self.names[values] = numbered(_word(values) or str(words), taken, first=2)
        return Expr(self.names[values])


def _word(values: tuple) -> str:
    """What KerasHub calls the field of the config, or the entries of a list, that all values are of; else nothing."""
    words = set()
    for value in values:
        if not isinstance(value, Expr) or len(value.names) != 1:
            return ""
        (name,) = value.names
        entry = entry_of(name)
        # What is left of a size is one, too; a part of a width is another thing.
        if name != value.text and (entry is not None or "**" in value.text):
            return ""
        words.add((name if entry is None else entry[0].removesuffix("s")).rpartition(".")[2])
    word = words.pop()
    return "" if words else FIELD_NAMES.get(word, word)
