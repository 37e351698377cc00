"""For every variable of the written model: its path, and the weight expression that fills it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hf2khc.diagnostics import fail
from hf2khc.ir.graph import CALLS, Graph, Node, callee_of, join
from hf2khc.write.analysis import Analysis, child_path, iteration_value, known
from hf2khc.write.members import INDEX, Member, members
from hf2khc.write.plan import Plan
from hf2khc.write.weight_expressions import Leaf, weight_expression

Env = Mapping[str, object]


@dataclass(frozen=True)
class WeightPath:
    """What fills one Keras variable.

    Args:
        keras: `variable.path`.
        transform: expression over `x`, or `x0`, `x1` ..., with functions named as in `keras.ops`.
        sources: absolute parameter paths in the transformers model, in the order of those names; empty for a constant.
        constant: path of the constant in `Program.constants` that takes the place of sources; else empty.
        core: whether the variable belongs to a layer of Keras, and not to a class of the package itself.
    """

    keras: str
    transform: str
    sources: tuple[str, ...] = ()
    constant: str = ""
    core: bool = False


def weight_paths(plan: Plan) -> list[WeightPath]:
    """One `WeightPath` per variable, layers in order of first use, loops expanded.

    Raises:
        ConversionError: `weight-paths`, where two expressions fill one variable.
    """
    walk = _Walk(Analysis(plan))
    found: dict[str, WeightPath] = {}
    for weight in walk.graph(plan.program.main, "", "", {}):
        if found.setdefault(weight.keras, weight) != weight:
            raise fail(
                "weight-paths",
                f"{weight.keras} is filled by two expressions",
                excerpt=f"{found[weight.keras]}\n{weight}",
            )
    return list(found.values())


class _Walk:
    def __init__(self, analysis: Analysis):
        self.analysis = analysis
        self._members: dict[str, Mapping[str, Member]] = {}

    def members(self, graph: Graph) -> Mapping[str, Member]:
        if graph.name not in self._members:
            self._members[graph.name] = members(self.analysis, graph)
        return self._members[graph.name]

    def graph(self, graph: Graph, path: str, prefix: str, parameters: Env) -> Iterator[WeightPath]:
        """The variables of one instance of a graph.

        Args:
            graph: the graph.
            path: module path of the instance.
            prefix: path of its Keras layer, with a slash at the end, or empty.
            parameters: values of its graph parameters.
        """
        env = {**self.analysis.plan.values, **parameters}
        for node in self.analysis.printed(graph.name):
            if node.op in CALLS:
                yield from self._calls(node, path, prefix, env)
            elif node.op.startswith("layers."):
                yield from self._layer(graph, node, path, prefix, env)
            elif node.name in self.members(graph):
                name = prefix + self.members(graph)[node.name].attribute
                yield _weight(name, Leaf("x", [(node.op, join(path, node.name[1:]))]))

    def _calls(self, node: Node, path: str, prefix: str, env: Env) -> Iterator[WeightPath]:
        name = str(node.attrs["name"])
        start = int(str(known(node.attrs.get("start", 0), env)))
        count = int(str(known(node.attrs["count"], env))) if node.op == "loop" and INDEX in name else 1
        for iteration in range(count):
            index = start + iteration
            callee = self.analysis.plan.program.graphs[callee_of(node, iteration)]
            inner = {p: iteration_value(node, p, env, iteration) for p in callee.parameters}
            layer = prefix + name.replace(INDEX, str(index)) + "/"
            yield from self.graph(callee, join(path, child_path(node, index)), layer, inner)

    def _layer(self, graph: Graph, node: Node, path: str, prefix: str, env: Env) -> Iterator[WeightPath]:
        variables = self.analysis.weights(graph, node)
        operands = node.operands[len(node.operands) - len(variables) :] if variables else ()
        for variable, operand in zip(variables, operands, strict=True):
            if operand is None:
                raise fail("weight-paths", f"%{node.name}: no operand for the weight {variable}")
            leaf = weight_expression(graph, operand, path, env)
            yield _weight(f"{prefix}{node.attrs['name']}/{variable}", leaf, core=True)


def _weight(name: str, leaf: Leaf, core: bool = False) -> WeightPath:
    kinds = {kind for kind, _ in leaf.sources}
    if kinds == {"const"} and len(leaf.sources) == 1:
        return WeightPath(name, leaf.text, constant=leaf.sources[0][1], core=core)
    if kinds != {"param"}:
        raise fail("weight-paths", f"{name} is computed from {', '.join(p for _, p in leaf.sources) or 'nothing'}")
    return WeightPath(name, leaf.text, tuple(path for _, path in leaf.sources), core=core)
