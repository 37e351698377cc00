"""From an exported torch.fx program to a Program[aten]: one Graph per module call, sizes as expressions."""

import itertools
import operator
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch

from hf2khc.capture.constants import constant, first_names
from hf2khc.capture.counted_loops import MARK
from hf2khc.capture.free_sizes import settled_sizes
from hf2khc.capture.fx_graphs import (
    complete_users,
    drop_aliases,
    forget_state_writes,
    forget_weights,
    output_paths,
    unflatten,
)
from hf2khc.capture.marked_rows import last_marked_rows
from hf2khc.capture.memory_order import strided_in_order
from hf2khc.capture.roll_rounds import roll_rounds
from hf2khc.capture.schema import flatten_call
from hf2khc.capture.symbols import Symbols
from hf2khc.capture.writes import without_writes
from hf2khc.diagnostics import ConversionError, fail
from hf2khc.ir.graph import Graph, Loc, Node, Program, join, numbered
from hf2khc.ir.types import Tensor, Type, tensors


def import_program(exported: torch.export.ExportedProgram, model: torch.nn.Module, names: Mapping[str, str],
                   title: Callable[[str, int], str | None] = lambda file, line: None,
                   largest: Mapping[str, int] = MappingProxyType({})) -> Program:  # fmt: skip
    """The program of an export.

    Args:
        exported: what torch.export gave for `model`.
        model: the traced model, for buffers and tied parameters.
        names: torch's size symbols to ours.
        title: the variable assigned at a file and line of the model's source, for readable names.
        largest: the largest size of our symbols, where they have one.

    Raises:
        ConversionError: a size that depends on data, or an op outside the known namespaces.
        RoundsDiffer: the rounds of a loop over a free size are no scan.
    """
    settled = settled_sizes(exported)
    complete_users(exported.graph)
    exported = without_writes(exported)
    strided_in_order(exported.graph)
    drop_aliases(exported.graph)
    last_marked_rows(exported.graph)
    forget_state_writes(exported)
    forget_weights(exported)
    unflattened = unflatten(exported)
    importer = _Importer(exported, model, Symbols(names, _ranges(exported, names, largest), settled), title)
    entry = importer.graph(unflattened, "")
    # A size among the outputs is no tensor, and no output.
    paths = zip(output_paths(exported), importer.results[entry], strict=True)
    outputs = tuple(path for path, result in paths if isinstance(result, str))
    # A module whose results nobody reads has none.
    graphs = {name: graph for name, graph in importer.graphs.items() if graph.outputs or name == entry}
    program = Program(graphs, entry, outputs, importer.constants)
    return _without_unused_outputs(program)


def _ranges(
    exported: torch.export.ExportedProgram, names: Mapping[str, str], largest: Mapping[str, int]
) -> dict[str, tuple[float, float]]:
    """The smallest and the largest size of each of torch's symbols."""
    found = {str(s): (float(r.lower), float(r.upper)) for s, r in exported.range_constraints.items() if s.is_symbol}
    return {s: (low, min(high, largest.get(names.get(s, ""), high))) for s, (low, high) in found.items()}


# The user's own line is the innermost one outside torch.
_TORCH = os.path.dirname(torch.__file__)


class _Importer:
    """Walks the recovered module hierarchy; one Graph per module call, merged later."""

    def __init__(self, exported, model, symbols: Symbols, title: Callable[[str, int], str | None]):
        self.symbols, self.title = symbols, title
        self.graphs: dict[str, Graph] = {}
        # What each graph's module returns: sizes among tensors, which the IR has no results for.
        self.results: dict[str, list[object]] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.persistent = set(exported.graph_signature.parameters) | {
            b for b in exported.graph_signature.buffers if b not in exported.graph_signature.non_persistent_buffers
        }
        self.values = {**exported.constants, **dict(model.named_buffers(remove_duplicate=False))}
        self.shapes = exported.state_dict
        self.owner = first_names(exported, model)

    def graph(self, module, path: str) -> str:
        """Import one module call; returns the name of its graph."""
        type_name = (module.type_name() or "Model").rsplit(".", 1)[-1]
        scope = _Scope(self, module, re.sub(r"@\d+", "", path), type_name)
        for node in module.graph.nodes:
            scope.add(node)
        name = numbered(type_name, self.graphs)
        graph = Graph(name, scope.nodes.values(), scope.outputs, cls=type_name)
        graph, steps = roll_rounds(graph, scope.marks, f"{type_name}Step", self.graphs)
        self.graphs |= {step.name: step for step in steps} | {name: graph}
        self.results[name] = scope.results
        return name

    def type(self, value) -> Type:
        """The IR type of a traced value."""
        if isinstance(value, tuple | list):
            return tuple(self.tensor(v) for v in value if isinstance(v, torch.Tensor))
        return self.tensor(value)

    def tensor(self, value: torch.Tensor) -> Tensor:
        """The IR type of one traced tensor."""
        dtype = str(value.dtype).removeprefix("torch.")
        return Tensor(dtype, tuple(self.symbols.dim(size) for size in value.shape))

    def leaf(self, path: str, absolute: str) -> Node:
        """A parameter or constant as a node; one tensor under several names goes by the first, from the root."""
        owner = self.owner.get(absolute, absolute)
        if owner != absolute:
            path, absolute = f"/{owner}", owner
        name, origin = f"@{path}", frozenset({f"@{absolute}"})
        if absolute in self.persistent:
            return Node(name, "param", type=self.type(self.shapes[absolute]), origin=origin)
        tensor = self.values[absolute]
        self.constants[absolute] = constant(tensor)
        return Node(name, "const", type=self.type(tensor), origin=origin)


class _Scope:
    """One graph under construction: fx nodes to operands of ours."""

    def __init__(self, importer: _Importer, module, path: str, cls: str):
        self.importer, self.module, self.path, self.cls = importer, module, path, cls
        self.nodes: dict[str, Node] = {}
        self.outputs: tuple[str, ...] = ()
        self.results: list[object] = []
        # The loop over a free size and the round of it that each of our nodes was traced in.
        self.marks: dict[str, tuple[int, int]] = {}
        # What an fx node stands for: the name of one of our nodes, a size or number, or a list of either.
        self.values: dict[torch.fx.Node, object] = {}

    def add(self, node: torch.fx.Node) -> None:
        getattr(self, f"_{node.op}")(node)

    def _placeholder(self, node: torch.fx.Node) -> None:
        value = node.meta["val"]
        if not isinstance(value, torch.Tensor):
            self.values[node] = self.importer.symbols.scalar(value)
            return
        self._put(
            node, Node(self._name(node, node.name), "input", type=self.importer.type(value), origin=_origin(node))
        )

    def _get_attr(self, node: torch.fx.Node) -> None:
        leaf = self.importer.leaf(node.target, join(self.path, node.target))
        self.nodes.setdefault(leaf.name, leaf)
        self.values[node] = leaf.name

    def _call_module(self, node: torch.fx.Node) -> None:
        child = self.module
        for part in node.target.split("."):
            child = getattr(child, part)
        graph = self.importer.graph(child, join(self.path, node.target))
        values = [value for a in node.args if isinstance(value := self._operand(a), str)]
        callee = self.importer.graphs[graph] = self._with_leaves(self.importer.graphs[graph], values)
        operands = tuple(value for value in values if not value.startswith("@"))
        types = tuple(callee[name].tensor for name in callee.outputs)
        attrs = {"graph": graph, "path": re.sub(r"@\d+", "", node.target)}
        name = self._name(node, re.sub(r"@\d+$", "", node.target.rsplit(".", 1)[-1]))
        results = self.importer.results[graph]
        if not types:
            self.values[node] = self._results(name, results)  # sizes, or nothing
            return
        type_: Type = types if len(types) > 1 else types[0]
        self._put(node, Node(name, "call", operands, attrs, type_, None, _origin(node)))
        if len(results) > 1:
            self.values[node] = self._results(name, results)

    def _results(self, call: str, results: list[object]) -> list[object]:
        """What each result of a call stands for: an `item` yet to be made, the call itself, or a size."""
        count = sum(isinstance(result, str) for result in results)
        numbers = itertools.count()
        return [
            result if not isinstance(result, str) else call if count == 1 else _Item(call, next(numbers))
            for result in results
        ]

    def _with_leaves(self, callee: Graph, values: list[str]) -> Graph:
        """The callee where a parameter of another module that is handed to it is read from there."""
        redirect, leaves = {}, []
        for node, value in zip(callee.inputs, values, strict=True):
            if value.startswith("@"):
                leaf = self.nodes[value]
                absolute = join(self.path, value[1:])
                leaves.append(replace(leaf, name=f"@/{absolute}"))
                redirect[node.name] = leaves[-1].name
        if not redirect:
            return callee
        wired = callee.replaced([*leaves, *callee]).rewired(redirect=redirect)
        return wired.replaced([node for node in wired if node.name not in redirect])

    def _call_function(self, node: torch.fx.Node) -> None:
        value = node.meta.get("val")
        if node.target is operator.getitem:
            self._item(node)
        elif isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool | int | float | bool):
            self.values[node] = self._located(node, self.importer.symbols.scalar, value)
        elif isinstance(node.target, torch._ops.OpOverload):
            self._op(node, value)
        else:
            raise fail("unsupported-op", f"{node.target} is not an operator of torch", location=self._place(node))

    def _item(self, node: torch.fx.Node) -> None:
        source, index = node.args
        held = self._operand(source)
        if isinstance(held, tuple | list):
            held = held[index]
        elif isinstance(held, str):
            held = _Item(held, index)
        if not isinstance(held, _Item):
            self.values[node] = held
            return
        types = tensors(self.nodes[held.source].type)
        name = self._name(node, f"{held.source}_{held.index}")
        attrs = {"index": held.index}
        self._put(node, Node(name, "item", (held.source,), attrs, types[held.index], self._loc(node), _origin(node)))

    def _op(self, node: torch.fx.Node, value) -> None:
        arguments = torch.fx.node.map_arg((node.args, node.kwargs), self._reference)
        operands, attrs = flatten_call(node.target, *arguments)
        operands = tuple(o.name if isinstance(o, _Reference) else o for o in operands)
        type_ = self._located(node, self.importer.type, value)
        name = str(node.target).rsplit(".", 1)[0]
        self._put(node, Node(self._name(node, node.name), name, operands, attrs, type_, self._loc(node), _origin(node)))

    def _output(self, node: torch.fx.Node) -> None:
        results = node.args[0] if isinstance(node.args[0], tuple | list) else (node.args[0],)
        self.results = [self._operand(result) for result in results]
        self.outputs = tuple(v for v in self.results if isinstance(v, str))

    def _put(self, node: torch.fx.Node, made: Node) -> None:
        self.nodes[made.name] = made
        self.values[node] = made.name
        mark = node.meta.get("custom", {}).get(MARK)
        if mark is not None:
            self.marks[made.name] = mark

    def _operand(self, argument):
        if isinstance(argument, torch.fx.Node):
            return self.values[argument]
        return argument

    def _reference(self, node: torch.fx.Node):
        held = self.values[node]
        return _Reference(held) if isinstance(held, str) else held

    def _located(self, node: torch.fx.Node, function, value):
        try:
            return function(value)
        except ConversionError as error:
            raise ConversionError(*(replace(d, location=self._place(node)) for d in error.diagnostics)) from None

    def _name(self, node: torch.fx.Node, default: str) -> str:
        loc = self._loc(node)
        title = self.importer.title(loc.file, loc.line) if loc and node.op in ("call_function", "call_module") else None
        return numbered(title or default, self.nodes)

    def _loc(self, node: torch.fx.Node) -> Loc | None:
        frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
        own = [frame for frame in frames if not frame[0].startswith(_TORCH)] or frames
        return Loc(own[-1][0], int(own[-1][1]), self.cls, self.path) if own else None

    def _place(self, node: torch.fx.Node) -> str:
        loc = self._loc(node)
        return f"{loc.file}:{loc.line}  ({self.cls}, {self.path})" if loc else f"({self.cls}, {self.path})"


@dataclass(frozen=True)
class _Item:
    """One result of a node with several."""

    source: str
    index: int


class _Reference:
    """An operand inside the arguments of an op, told apart from plain strings."""

    def __init__(self, name: str):
        self.name = name


def _origin(node: torch.fx.Node) -> frozenset[str]:
    return frozenset({node.name})


def _without_unused_outputs(program: Program) -> Program:
    """Drop dead nodes; unflattening keeps results nobody reads."""
    return program.map(Graph.pruned)
