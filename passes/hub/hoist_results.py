"""Compute what a module returns beside its real work in its caller."""

from dataclasses import dataclass, replace

from hf2khc.ir.graph import LEAVES, Graph, Node, Program, join


def hoist_results(program: Program) -> Program:
    """Move results that depend on no activations out of modules that have other results.

    The first layer of a stack may make something for all of them, a bias of relative positions say, and hand it on: it
    then computes more than its neighbours do. Made by the caller and handed to every layer, it leaves them equal.

    Before:

        graph First(%x: f32[batch, seq, 4]) {
          param @table: f32[4]
          %bias: f32[4] = ops.relu(@table)
          %y: f32[batch, seq, 4] = ops.add(%x, %bias)
          return %bias, %y
        }

        graph Model(%x: f32[batch, seq, 4]) {
          %all: (f32[4], f32[batch, seq, 4]) = call(%x, graph="First", path="layers.0")
          %bias: f32[4] = item(%all, index=0)
          %h: f32[batch, seq, 4] = item(%all, index=1)
          %y: f32[batch, seq, 4] = ops.multiply(%h, %bias)
          return %y
        }

        entry Model

    After:

        graph First(%x: f32[batch, seq, 4], %bias: f32[4]) {
          %y: f32[batch, seq, 4] = ops.add(%x, %bias)
          return %y
        }

        graph Model(%x: f32[batch, seq, 4]) {
          param @layers.0.table: f32[4]
          %bias_1: f32[4] = ops.relu(@layers.0.table)
          %all: f32[batch, seq, 4] = call(%x, %bias_1, graph="First", path="layers.0")
          %y: f32[batch, seq, 4] = ops.multiply(%all, %bias_1)
          return %y
        }

        entry Model
    """
    graphs = dict(program.graphs)
    splits: dict[str, _Split] = {}
    for graph in program.callees_first():
        for name in [call.name for call in graph.of("call") if call.attrs["graph"] in splits]:
            graph = splits[str(graph[name].attrs["graph"])].called(graph, graph[name])
        split = _split(graph) if graph.name != program.entry else None
        if split is not None:
            splits[graph.name] = split
            graph = split.rest
        graphs[graph.name] = graph
    return program.with_graphs(graphs.values())


@dataclass(frozen=True)
class _Split:
    """A module without some of its results.

    Args:
        whole: the module as it was.
        rest: what is left of it.
        moved: the results that its callers compute.
        given: those among them that the rest takes as inputs.
    """

    whole: Graph
    rest: Graph
    moved: tuple[str, ...]
    given: tuple[str, ...]

    def called(self, caller: Graph, call: Node) -> Graph:
        """The caller with the moved results computed before the call."""
        names = dict(zip((node.name for node in self.whole.inputs), call.operands, strict=True))
        made = [self._copy(node, caller, call, names) for node in _behind(self.whole, self.moved)]
        operands = (*call.operands, *(names[name] for name in self.given))
        types = [self.rest[output].tensor for output in self.rest.outputs]
        new = [*made, replace(call, operands=operands, type=types[0] if len(types) == 1 else tuple(types))]
        redirect: dict[str, str] = {}
        for item in (user for user in caller.users(call.name) if user.op == "item"):
            output = self.whole.outputs[int(str(item.attrs["index"]))]
            if output in self.moved:
                redirect[item.name] = str(names[output])
            elif len(types) == 1:
                redirect[item.name] = call.name
            else:
                new.append(item.with_attrs(index=self.rest.outputs.index(output)))
        return caller.rewired(new, redirect)

    def _copy(self, node: Node, caller: Graph, call: Node, names: dict[str, str | None]) -> Node:
        if node.op in ("param", "const"):
            absolute = node.name.startswith("@/")
            names[node.name] = node.name if absolute else f"@{join(str(call.attrs['path']), node.name[1:])}"
            return replace(node, name=str(names[node.name]))
        names[node.name] = caller.fresh(node.name, taken=[name for name in names.values() if name])
        return replace(
            node,
            name=str(names[node.name]),
            operands=tuple(o and names[o] for o in node.operands),
            origin=node.origin | {"hoist_results"},
        )


def _split(graph: Graph) -> _Split | None:
    still = _still(graph)
    moved = tuple(dict.fromkeys(o for o in graph.outputs if o in still and graph[o].op not in LEAVES))
    if not moved or len(moved) == len(set(graph.outputs)):
        return None
    inputs = {name: Node(name, "input", type=graph[name].type, origin=graph[name].origin) for name in moved}
    rest = graph.rewired(inputs.values()).replaced(outputs=[o for o in graph.outputs if o not in moved]).pruned()
    given = tuple(name for name in moved if rest.uses(name))
    # New inputs come last.
    kept = [*graph.inputs, *(inputs[name] for name in given), *(node for node in rest if node.op != "input")]
    return _Split(graph, rest.replaced(kept), moved, given)


def _still(graph: Graph) -> set[str]:
    """Values that depend on parameters, sizes and integer inputs alone."""
    found: set[str] = set()
    for node in graph:
        leaf = node.op in ("param", "const") or (node.op == "input" and not node.tensor.is_floating)
        computed = node.level in ("ops", "hub", "layers") and node.op != "layers.Dropout"
        if leaf or (computed and all(o in found for o in node.used)):
            found.add(node.name)
    return found


def _behind(graph: Graph, names: tuple[str, ...]) -> list[Node]:
    """What values are computed from, without the inputs."""
    wanted = graph.behind(names)
    return [node for node in graph if node.name in wanted and node.op != "input"]
