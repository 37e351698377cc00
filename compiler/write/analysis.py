"""Facts about the graphs of a plan that the printers share."""

import functools
from collections.abc import Mapping

from hf2khc.diagnostics import fail
from hf2khc.ir.expr import evaluate, names_of
from hf2khc.ir.graph import CALLS, Graph, Node, callees, first_iterations, join
from hf2khc.ir.types import Tensor, tensors
from hf2khc.write.layer_facts import call_arguments, constructor_defaults, takes_training, variable_names
from hf2khc.write.plan import CONSTANT, Field, Plan

# What a symbol stands for where a shape has to be a number: enough for any stride and any window.
_ANY_SIZE = 2**20


class Analysis:
    """A plan with, per graph, what is printed, how it is bound and where it occurs."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.graphs = plan.program.callees_first()
        self.bindings: dict[str, Mapping[str, object]] = {}
        self.paths: dict[str, list[str]] = {}
        self._visit(plan.program.main, "", {})

    def _visit(self, graph: Graph, path: str, parameters: Mapping[str, object]):
        """Record one instance of every graph, the first one met, at the small config."""
        self.bindings.setdefault(graph.name, parameters)
        if path in self.paths.setdefault(graph.name, []):
            return
        self.paths[graph.name].append(path)
        env = {**self.plan.tiny_values, **parameters}
        for node in graph.of(*CALLS):
            start = known(node.attrs.get("start", 0), env)
            for name, iteration in first_iterations(node).items():
                callee = self.plan.program.graphs[name]
                inner = {p: iteration_value(node, p, env, iteration) for p in callee.parameters}
                self._visit(callee, join(path, child_path(node, start + iteration)), inner)

    def env(self, graph: Graph) -> Mapping[str, object]:
        """Values of every name at the small config, in the first instance of a graph."""
        symbols = {s: _ANY_SIZE for node in graph for t in tensors(node.type) for s in t.symbols}
        return {**symbols, **self.plan.tiny_values, **self.bindings[graph.name]}

    def weights(self, graph: Graph, node: Node) -> tuple[str, ...]:
        """Names of the weights of a `layers.*` node, in the order of its trailing operands."""
        env = self.env(graph)
        attributes = {k: known(v, env) for k, v in constructor_attributes(node).items()}
        types = [graph[o].type for o in node.operands if o is not None]
        shapes = tuple(tuple(int(known(d, env)) for d in t.shape) for t in types if isinstance(t, Tensor))
        return variable_names(node.op, attributes, shapes)

    def data(self, graph: Graph, node: Node) -> tuple[str | None, ...]:
        """The operands that are printed: all but the weights of a layer."""
        if not node.op.startswith("layers."):
            return node.operands
        weights = self.weights(graph, node)
        if len(weights) >= len(node.operands):
            message = f"%{node.name}: {node.op} has the weights {', '.join(weights)}, not one less than its operands"
            raise fail("layer-weights", message, location=str(node.loc or graph.name))
        return node.operands[: len(node.operands) - len(weights)]

    @functools.cache  # noqa: B019, one analysis lives as long as the writing of its plan
    def printed(self, graph_name: str) -> tuple[Node, ...]:
        """The nodes whose values the code computes, weight expressions left out."""
        graph = self.plan.program.graphs[graph_name]
        alive = set(graph.outputs)
        for node in reversed(graph.nodes.values()):
            if node.name in alive:
                alive.update(o for o in self.data(graph, node) if o is not None)
        return tuple(node for node in graph if node.name in alive or node.op == "input")

    @functools.cache  # noqa: B019
    def training(self, graph_name: str) -> bool:
        """Whether a graph contains, at any depth, a layer that behaves otherwise in training."""
        for node in self.printed(graph_name):
            if node.op.startswith("layers.") and takes_training(node.op):
                return True
            if node.op in CALLS and any(map(self.training, callees(node))):
                return True
        return False

    @functools.cache  # noqa: B019
    def stated(self, graph_name: str) -> frozenset[str]:
        """The parameters of a graph with which something is computed or made; the others are sizes of its inputs."""
        graph = self.plan.program.graphs[graph_name]
        used: set[str] = set()
        for node in self.printed(graph_name):
            unstated: set[str] = set()
            if node.op in CALLS:
                called = [(self.plan.program.graphs[name].parameters, self.stated(name)) for name in callees(node)]
                unstated = {p for parameters, stated in called for p in parameters if p not in stated}
            used.update(*(names_of(value) for key, value in node.attrs.items() if key not in unstated))
            if node.op in ("param", "const") and isinstance(node.type, Tensor):
                used.update(node.type.symbols)
        return frozenset(used) & frozenset(graph.parameters)

    def constant(self, graph: Graph, path: str) -> Field | None:
        """The field of constructor data for a constant of a graph, `None` for one that is too large for an argument."""
        return self.plan.by_source.get(CONSTANT + join(self.paths[graph.name][0], path))


def known(value, env: Mapping[str, object]):
    """The value of an attribute or dimension.

    Raises:
        ConversionError: `unnamed-field`, for a name that has no value.
    """
    try:
        return evaluate(value, env)
    except KeyError as error:
        raise fail("unnamed-field", f"the package has no constructor argument for {error.args[0]}") from None


def child_path(node: Node, index: int) -> str:
    """The module path of a call, or of one iteration of a loop."""
    return str(node.attrs.get("path", "")).replace("{i}", str(index))


def iteration_value(node: Node, parameter: str, env: Mapping[str, object], iteration: int):
    """The value of a graph parameter in an iteration, counted from 0, of a `loop`, or in a `call`."""
    value = known(node.attrs[parameter], env)
    if node.op == "loop" and isinstance(value, tuple):
        return value[iteration % len(value)]
    return value


def constructor_attributes(node: Node) -> Mapping[str, object]:
    """The attributes of a `layers.*` node that its constructor takes."""
    known = constructor_defaults(node.op)
    calls = call_arguments(node.op)
    for key in node.attrs:
        if key not in known and key not in calls:
            raise fail(
                "layer-arguments", f"%{node.name}: {node.op} has no argument {key}", location=str(node.loc or "")
            )
    return {k: v for k, v in node.attrs.items() if k in known}


def call_keywords(node: Node) -> Mapping[str, object]:
    """The attributes of a `layers.*` node that belong to the call."""
    return {k: v for k, v in node.attrs.items() if k not in constructor_defaults(node.op)}
