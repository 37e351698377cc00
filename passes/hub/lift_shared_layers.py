"""Bring layers that share their weights together."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from hf2khc.ir.analysis import (
    call_depth,
    call_sites,
    has_parameters,
    module_paths,
    parameters_behind,
    weight_values,
)
from hf2khc.ir.graph import LEAVES, Graph, Node, Program, join
from hf2khc.ir.inline import inline_calls, leaf_name
from hf2khc.passes.hub.simplify import once


def lift_shared_layers(program: Program) -> Program:
    """Move layers on weights of another module out to the caller, until they stand beside the owner's.

    An encoder and a decoder on one embedding, or a head on the embedding's transpose: in Keras both are calls of one
    layer, so they must be made where both can be reached. A layer moves out when it reads only inputs of its module, or
    when the module does nothing after it; the owner's own layer moves as well. A module that computes something before
    the layer and something after it is dissolved into its caller, since it cannot be one layer then.

    Before:

        graph Embeddings(%ids: i64[batch, seq]) {
          param @weight: f32[9, 4]
          %x: f32[batch, seq, 4] = layers.Embedding(%ids, @weight, input_dim=9, output_dim=4)
          %y: f32[batch, seq, 4] = ops.relu(%x)
          return %y
        }

        graph Model(%ids: i64[batch, seq]) {
          param @embeddings.weight: f32[9, 4]
          %h: f32[batch, seq, 4] = call(%ids, graph="Embeddings", path="embeddings")
          %kernel: f32[4, 9] = ops.transpose(@embeddings.weight)
          %z: f32[batch, seq, 9] = layers.Dense(%h, %kernel, units=9, use_bias=false)
          return %z
        }

        entry Model

    After:

        graph Model(%ids: i64[batch, seq]) {
          param @embeddings.weight: f32[9, 4]
          %kernel: f32[4, 9] = ops.transpose(@embeddings.weight)
          %x: f32[batch, seq, 4] = layers.Embedding(%ids, @embeddings.weight, input_dim=9, output_dim=4)
          %y: f32[batch, seq, 4] = ops.relu(%x)
          %z: f32[batch, seq, 9] = layers.Dense(%y, %kernel, units=9, use_bias=false)
          return %z
        }

        entry Model
    """
    lifted = program
    while (use := _next(lifted)) is not None:
        lifted = _lifted(lifted, use, root=use.caller == program.entry)
    if lifted is program:
        return program
    owns = has_parameters(lifted)
    # Equal weights by one name are one layer.
    return inline_calls(lifted, lambda callee, call: not owns[callee.name]).map(once)


@dataclass(frozen=True)
class _Use:
    """A layer on shared weights, in a graph that one call makes."""

    callee: str
    layer: str
    caller: str
    call: str


def _next(program: Program) -> _Use | None:
    """The most deeply nested layer that shares weights with a layer of another module."""
    paths, sites = module_paths(program), call_sites(program)
    places: dict[str, set[tuple[str, ...]]] = {}
    uses = []
    for graph in program.callees_first():
        place = _place(graph.name, paths, sites)
        for node, parameters in _layers(graph, place[0]):
            uses.append((graph.name, node.name, parameters))
            for parameter in parameters:
                places.setdefault(parameter, set()).add(place)
    shared = {parameter for parameter, where in places.items() if len(where) > 1}
    candidates = [(g, layer) for g, layer, parameters in uses if parameters & shared and g != program.entry]
    if not candidates:
        return None
    name, layer = max(candidates, key=lambda use: call_depth(use[0], sites))
    return _Use(name, layer, *sites[name])


def _place(name: str, paths: Mapping[str, str], sites: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    """Paths of the module of a graph and of all that it is called in.

    One module that is called from two others is two layers in print, unless its own layers stand where both can reach
    them: the head of a decoder that the whole model calls once more (SAM 3).
    """
    return paths[name], *(_place(sites[name][0], paths, sites) if name in sites else ())


def _layers(graph: Graph, path: str) -> Iterator[tuple[Node, frozenset[str]]]:
    """Layers and the absolute paths of their parameters."""
    weights = weight_values(graph)
    for node in graph:
        if node.level == "layers":
            behind = [p for o in node.used if o in weights for p in parameters_behind(graph, o)]
            yield node, frozenset(join(path, p[1:]) for p in behind)


def _lifted(program: Program, use: _Use, root: bool) -> Program:
    """One layer moved from a graph into its caller."""
    callee, caller = program.graphs[use.callee], program.graphs[use.caller]
    call, layer = caller[use.call], callee[use.layer]
    weights = weight_values(callee)
    data = [o for o in layer.used if o not in weights]
    if all(callee[o].op == "input" for o in data):
        moved = _before(callee, caller, call, layer, data, root)
    elif len(data) == 1 and layer.name in callee.outputs and not callee.users(layer.name):
        moved = _after(callee, caller, call, layer, data[0], root)
    else:
        return inline_calls(program, lambda graph, node: graph.name == use.callee)
    new = dict(zip((use.callee, use.caller), moved, strict=True))
    return program.with_graphs(new.get(graph.name, graph) for graph in program.graphs.values())


def _before(callee: Graph, caller: Graph, call: Node, layer: Node, data: list[str], root: bool) -> tuple[Graph, Graph]:
    """The layer reads inputs alone: the caller computes it and hands it over."""
    given = dict(zip((node.name for node in callee.inputs), call.operands, strict=True))
    copied, names = _weights(callee, caller, call, layer, root)
    operands = tuple(given[o] if o in data else names[o] for o in layer.used)
    made = replace(layer, name=caller.fresh(layer.name, taken=[n.name for n in copied]), operands=operands)
    inside = callee.rewired([Node(layer.name, "input", type=layer.type, loc=layer.loc, origin=layer.origin)])
    unused = [n.name for n in inside.inputs if n.name in data and not inside.uses(n.name)]
    order = [n.name for n in callee.inputs if n.name not in unused] + [layer.name]
    inside = inside.replaced([*(inside[n] for n in order), *(n for n in inside if n.op != "input")])
    handed = (*(given[n] for n in order[:-1]), made.name)
    return inside, caller.replaced([*caller, *copied, made]).rewired([replace(call, operands=handed)])


def _after(callee: Graph, caller: Graph, call: Node, layer: Node, data: str, root: bool) -> tuple[Graph, Graph]:
    """The module ends with the layer: the caller computes it from what the module returns instead."""
    at = callee.outputs.index(layer.name)
    outputs = tuple(data if o == layer.name else o for o in callee.outputs)
    inside = callee.replaced(outputs=outputs).pruned()
    copied, names = _weights(callee, caller, call, layer, root)
    result = call if not isinstance(call.type, tuple) else _item(caller, call, at)
    before = replace(result, name=caller.fresh(data, taken=[n.name for n in copied]), type=callee[data].type)
    if result is call:
        nodes = [before]
    else:
        types = tuple(callee[o].tensor for o in outputs)
        nodes = [replace(call, type=types), before]
    operands = tuple(before.name if o == data else names[o] for o in layer.used)
    made = replace(layer, name=result.name, operands=operands)
    kept = [n for n in caller if n.name not in (call.name, result.name)]
    return inside, caller.replaced([*kept, *copied, *nodes, made]).rewired()


def _item(caller: Graph, call: Node, index: int) -> Node:
    return next(user for user in caller.users(call.name) if user.op == "item" and user.attrs["index"] == index)


def _weights(callee: Graph, caller: Graph, call: Node, layer: Node, root: bool) -> tuple[list[Node], dict[str, str]]:
    """The layer's weight expressions as nodes of the caller, and their names there."""
    weights = weight_values(callee)
    needed = {o for o in layer.used if o in weights}
    for node in reversed(callee.nodes.values()):
        if node.name in needed:
            needed.update(node.used)
    names: dict[str, str] = {}
    copied = []
    for node in callee:
        if node.name in needed:
            names[node.name] = _named(node, caller, call, names, root)
            if names[node.name] not in caller:
                copied.append(
                    replace(node, name=names[node.name], operands=tuple(o and names[o] for o in node.operands))
                )
    return copied, names


def _named(node: Node, caller: Graph, call: Node, names: dict[str, str], root: bool) -> str:
    if node.op not in LEAVES:
        return caller.fresh(node.name, taken=names.values())
    return leaf_name(node.name, str(call.attrs["path"]), root)
