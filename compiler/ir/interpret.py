"""The interpreter: runs a Program at any level, given an evaluator per dialect."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hf2khc.diagnostics import ConversionError, fail
from hf2khc.ir.expr import evaluate
from hf2khc.ir.graph import Graph, Node, Program, callee_of, join, scan_parts
from hf2khc.ir.text import format_node
from hf2khc.ir.types import Tensor, bind, concrete, tensors

# (node, operand values, attributes with expressions evaluated, values of symbols) -> the node's value.
Evaluator = Callable[[Node, list, dict[str, object], Mapping[str, object]], object]
# (graph, path of the module instance, node, its value), called once per node evaluated.
Observer = Callable[[Graph, str, Node, object], None]


def interpret(
    program: Program,
    inputs: Mapping[str, object],
    parameters: Callable[[str], object],
    evaluators: Mapping[str, Evaluator],
    observe: Observer | None = None,
    env: Mapping[str, object] | None = None,
) -> tuple:
    """The outputs of a program.

    Values are arrays of any kind with a `shape`, whatever the evaluators take and give; several results are a tuple.

    Args:
        program: verified.
        inputs: value by name of an input of the entry graph.
        parameters: the value of a parameter by its absolute path.
        evaluators: by op prefix: `aten`, `ops`, `layers`, `hub`.
        observe: is told every value.
        env: names that no input's shape binds, such as `config.hidden_size`.

    Raises:
        ConversionError: an input is missing, an evaluator fails, or a value has not the shape its node declares.
    """
    main = program.main
    missing = [node.name for node in main.inputs if node.name not in inputs]
    if missing:
        raise fail("missing-input", f"no value for the inputs {', '.join(missing)} of {main.name}")
    run = _Run(program, parameters, evaluators, observe)
    return run.graph(main, [_laid_out(node, inputs[node.name]) for node in main.inputs], "", dict(env or {}))


def _laid_out(node: Node, value):
    """An input in the program's layout; it is given in the model's own."""
    axes: Any = node.attrs.get("permute")
    return value if axes is None else np.transpose(np.asarray(value), axes)


@dataclass(frozen=True)
class _Run:
    """What is the same throughout one interpretation."""

    program: Program
    parameters: Callable[[str], object]
    evaluators: Mapping[str, Evaluator]
    observe: Observer | None

    def graph(self, graph: Graph, arguments: list, path: str, env: Mapping[str, object]) -> tuple:
        """The outputs of one call of `graph` as the module instance at `path`; `env` holds the caller's symbols."""
        given = {node.name: value for node, value in zip(graph.inputs, arguments, strict=True) if value is not None}
        shapes = {name: tuple(value.shape) for name, value in given.items()}
        scope = _Scope(graph, path, {**env, **bind({name: graph[name].tensor for name in shapes}, shapes)})
        scope.values.update(zip((node.name for node in graph.inputs), arguments, strict=True))
        left = {node.name: graph.uses(node.name) for node in graph}
        for node in graph:
            if node.op != "input":
                scope.values[node.name] = self._evaluate(node, scope)
            self._check(node, scope)
            for operand in node.used:
                left[operand] -= 1
                if not left[operand]:
                    del scope.values[operand]
        return tuple(scope.values[name] for name in graph.outputs)

    def _evaluate(self, node: Node, scope: "_Scope"):
        operands = [None if o is None else scope.values[o] for o in node.operands]
        structural = getattr(self, f"_{node.op}", None) if node.op in _STRUCTURAL else None
        if structural:
            return structural(node, operands, scope)
        if node.level not in self.evaluators:
            raise _failure("unknown-op", f"no evaluator for {node.op}", node, scope)
        attrs = _attributes(node, scope)
        try:
            return self.evaluators[node.level](node, operands, attrs, scope.env)
        except ConversionError:
            raise
        except Exception as error:
            shapes = ", ".join(str(tuple(o.shape)) if hasattr(o, "shape") else "none" for o in operands)
            message = f"{node.op} failed on shapes {shapes}: {type(error).__name__}: {error}"
            raise _failure("evaluation", message, node, scope) from error

    def _param(self, node: Node, operands: list, scope: "_Scope"):
        return self.parameters(join(scope.path, node.name[1:]))

    def _const(self, node: Node, operands: list, scope: "_Scope"):
        path = join(scope.path, node.name[1:])
        if path not in self.program.constants:
            raise _failure("missing-constant", f"the program has no values for the constant {path}", node, scope)
        return self.program.constants[path]

    def _item(self, node: Node, operands: list, scope: "_Scope"):
        return operands[0][node.attrs["index"]]

    def _call(self, node: Node, operands: list, scope: "_Scope"):
        attrs = _attributes(node, scope)
        callee = self.program.graphs[attrs["graph"]]
        env = {**scope.env, **{name: attrs[name] for name in callee.parameters}}
        return _result(self.graph(callee, operands, join(scope.path, attrs["path"]), env))

    def _loop(self, node: Node, operands: list, scope: "_Scope"):
        attrs = _attributes(node, scope)
        carried, invariant = operands[: attrs["carry"]], operands[attrs["carry"] :]
        for i in range(attrs["count"]):
            callee = self.program.graphs[callee_of(node, i)]
            path = join(scope.path, attrs["path"].replace("{i}", str(attrs["start"] + i)))
            env = {**scope.env, **{name: _of_iteration(attrs[name], i) for name in callee.parameters}}
            carried = list(self.graph(callee, carried + invariant, path, env))
        return _result(tuple(carried))

    def _scan(self, node: Node, operands: list, scope: "_Scope"):
        """The results of every entry, along a first axis."""
        attrs = _attributes(node, scope)
        carried, sequences, invariant = scan_parts(node, operands)
        callee = self.program.graphs[attrs["graph"]]
        env = {**scope.env, **{name: attrs[name] for name in callee.parameters}}
        rounds = []
        for entries in zip(*sequences, strict=True):
            carried = list(self.graph(callee, [*carried, *entries, *invariant], join(scope.path, attrs["path"]), env))
            rounds.append(carried)
        return _result(tuple(self._stacked(values, scope) for values in zip(*rounds, strict=True)))

    def _stacked(self, values: tuple, scope: "_Scope"):
        node = Node("stacked", "ops.stack", (), {"axis": 0})
        return self.evaluators["ops"](node, list(values), {"axis": 0}, scope.env)

    def _check(self, node: Node, scope: "_Scope") -> None:
        """Compare a value with its node's type, and tell the observer."""
        value = scope.values[node.name]
        if value is None:
            return
        parts = value if isinstance(value, tuple) else (value,)
        found = tuple(tuple(int(size) for size in part.shape) for part in parts)
        declared = tuple(_shape(type_, node, scope) for type_ in tensors(node.type))
        if len(found) == len(declared) > 1:  # what nobody reads is another with each of torch's kernels
            read = {user.attrs.get("index") for user in scope.graph.users(node.name)}
            found = tuple(size if i in read else declared[i] for i, size in enumerate(found))
        if found != declared or isinstance(value, tuple) != isinstance(node.type, tuple):
            raise _failure(
                "wrong-shape", f"{node.op} gave {_text(found)} where {_text(declared)} is declared", node, scope
            )
        if self.observe:
            self.observe(scope.graph, scope.path, node, value)


_STRUCTURAL = ("param", "const", "call", "item", "loop", "scan")


@dataclass
class _Scope:
    """One call of a graph under way."""

    graph: Graph
    path: str
    env: dict[str, Any]
    values: dict[str, object] = field(default_factory=dict)


def _attributes(node: Node, scope: _Scope) -> dict[str, Any]:
    try:
        return {key: evaluate(value, scope.env) for key, value in node.attrs.items()}
    except KeyError as error:
        raise _failure("unbound-name", f"nothing binds the name {error.args[0]}", node, scope) from None


def _shape(type_: Tensor, node: Node, scope: _Scope) -> tuple[int, ...]:
    try:
        return concrete(type_, scope.env)
    except KeyError as error:
        raise _failure("unbound-name", f"nothing binds the name {error.args[0]}", node, scope) from None


def _of_iteration(value, i: int):
    return value[i] if isinstance(value, tuple) else value


def _result(values: tuple):
    return values if len(values) > 1 else values[0]


def _text(shapes: tuple) -> str:
    return ", ".join(str(list(shape)) for shape in shapes) or "nothing"


def _failure(code: str, message: str, node: Node, scope: _Scope) -> ConversionError:
    loc = node.loc
    place = (
        f"{loc.file}:{loc.line}  ({scope.graph.name}, {scope.path})" if loc else f"({scope.graph.name}, {scope.path})"
    )
    return fail(code, message, location=place, excerpt=format_node(node))
