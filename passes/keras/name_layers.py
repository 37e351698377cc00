"""Give every layer its attribute name."""

import re
from collections import defaultdict
from collections.abc import Container

from hf2khc.ir.analysis import first_parameter, weight_values
from hf2khc.ir.attention import PROJECTIONS, ROLES, attentions
from hf2khc.ir.evaluate import layer_arguments
from hf2khc.ir.graph import CALLS, Graph, Node, Program, callees
from hf2khc.ir.outline import class_prefix
from hf2khc.passes.keras.vocabulary import GENERIC_NAMES, LAYER_NAMES, snake

_ALL_ROLES = (*ROLES, "attention_output")
_LIST = re.compile(r"_(layers|blocks)$")
_LAYER_WEIGHT = re.compile("weight|bias|kernel|original")


def name_layers(program: Program) -> Program:
    """Name layers by their role, and by the model's own attribute names where they have none.

    The projections of an attention are `query`, `key`, `value` and `attention_output`: `enable_lora` and sharding look
    for those names. Two nodes on the same weights are one layer called twice and share a name.

    Before:

        graph MLP(%x: f32[batch, 8]) {
          param @fc.weight: f32[8, 8]
          %h: f32[batch, 8] = layers.Dense(%x, @fc.weight, units=8, use_bias=false)
          %y: f32[batch, 8] = layers.Dense(%h, @fc.weight, units=8, use_bias=false)
          return %y
        }

        entry MLP

    After:

        graph MLP(%x: f32[batch, 8]) {
          param @fc.weight: f32[8, 8]
          %h: f32[batch, 8] = layers.Dense(%x, @fc.weight, units=8, use_bias=false, name="fc")
          %y: f32[batch, 8] = layers.Dense(%h, @fc.weight, units=8, use_bias=false, name="fc")
          return %y
        }

        entry MLP
    """
    prefix, through = class_prefix(program), _without_projections(program)
    return program.map(lambda graph: _named(graph, prefix, through))


def _without_projections(program: Program) -> frozenset[str]:
    """Graphs that compute on what they are given without projecting it: rotary embeddings, norms, scales."""
    found: set[str] = set()
    for graph in program.callees_first():
        if not graph.of(*PROJECTIONS) and all({*callees(node)} <= found for node in graph.of(*CALLS)):
            found.add(graph.name)
    return frozenset(found)


def _named(graph: Graph, prefix: str, through: Container[str]) -> Graph:
    roles = {**_roles(graph, through), **_stacks(graph)}
    weights = weight_values(graph)
    names: dict[tuple, str] = {}
    nodes = []
    for node in graph:
        if node.level != "layers" and node.op not in CALLS:
            nodes.append(node)
            continue
        key = _identity(node, weights)
        if key not in names:
            wish = roles.get(node.name) or _own_name(graph, node, weights, prefix)
            # Loops over one list are one list of layers in the package, too.
            taken = set() if node.op == "loop" and "{i}" in str(node.attrs["path"]) else set(names.values())
            names[key] = _unused(wish, _qualified(graph, node, weights), taken)
        nodes.append(node.with_attrs(name=names[key]))
    return graph.replaced(nodes)


def _identity(node: Node, weights: frozenset[str]) -> tuple:
    """What makes two nodes one layer: the module path, the weights, or without any the attributes."""
    if node.op in CALLS:
        return "call", node.attrs["path"], node.attrs["graph"]
    owned = tuple(o for o in node.used if o in weights)
    if owned:
        return (node.op, *owned)
    taken = layer_arguments(node.op)
    # What is random has a seed of its own.
    drawn = taken is None or "training" in taken.call
    return (node.op, node.name) if drawn else (node.op, *sorted(node.attrs.items()))


def _roles(graph: Graph, through: Container[str]) -> dict[str, str]:
    """Roles of the projections around attentions: the same layer in two roles has none."""
    found: dict[str, set[str]] = defaultdict(set)
    for *operands, result in attentions(graph):
        layers = [_projection_before(graph, operand, through) for operand in operands]
        for layer, role in zip([*layers, _projection_after(graph, graph[result])], _ALL_ROLES, strict=True):
            if layer:
                found[layer].add(role)
    return {layer: roles.pop() for layer, roles in found.items() if len(roles) == 1}


def _stacks(graph: Graph) -> dict[str, str]:
    """Repeated layers are the model's transformer layers; several stacks go by what owns them as well."""
    loops = [loop for loop in graph.of("loop") if "{i}" in str(loop.attrs["path"])]
    owners = _owners({str(loop.attrs["path"]) for loop in loops})
    names: dict[str, str] = {}
    for loop in loops:
        name = names[loop.name] = "_".join([*owners[str(loop.attrs["path"])], "transformer_layer_{i}"])
        # A first layer of another kind is one of the layers all the same.
        for call in graph.of("call"):
            number = _number(str(call.attrs["path"]), str(loop.attrs["path"]))
            if number is not None:
                names[call.name] = name.replace("{i}", number)
    return names


def _number(path: str, pattern: str) -> str | None:
    """The number that stands for `{i}` in a path."""
    before, _, after = pattern.partition("{i}")
    number = path.removeprefix(before).removesuffix(after)
    return number if number.isdigit() and path == before + number + after else None


def _owners(lists: set[str]) -> dict[str, list[str]]:
    """As much of the path of each list as tells it from the others: nothing where it is the only one."""
    # The name of a list says no more than that it is one; its number, in a list of lists, tells it from the others.
    split = {path: path.split(".") for path in lists}
    parts = {path: found[:-1] if found[-2:-1] and found[-2].isdigit() else found[:-2] for path, found in split.items()}
    if len(lists) == 1:
        return {path: [] for path in lists}
    if len({*map(tuple, parts.values())}) < len(lists):  # one module owns several: their own names tell them apart
        parts = {path: [*found[:-2], *(_LIST.sub("", name) for name in found[-2:-1])] for path, found in split.items()}
    modules = {path: [part for part in found if not part.isdigit()][-1:] for path, found in parts.items()}
    if len({*map(tuple, modules.values())}) == len(lists):
        return modules
    longest = max(map(len, parts.values()))
    ends = ({path: found[-length:] for path, found in parts.items()} for length in range(1, longest + 1))
    end = next((end for end in ends if len({*map(tuple, end.values())}) == len(lists)), parts)
    shared = {part for part in next(iter(end.values())) if all(part in found for found in end.values())}
    told = {path: [part for part in found if part not in shared] for path, found in end.items()}
    if all(found and not found[0].isdigit() for found in told.values()):
        return told
    return {path: parts[path][-len(found) - 1 :] for path, found in end.items()}


def _projection_before(graph: Graph, name: str | None, through: Container[str]) -> str | None:
    """The projection a value comes from, through operations and layers that do not project."""
    while name is not None:
        node = graph[name]
        if node.op in PROJECTIONS:
            return name
        is_through = node.level in ("ops", "layers", "hub") or node.op == "item"
        if not is_through and not (node.op == "call" and node.attrs["graph"] in through):
            return None
        if node.op == "ops.concatenate":  # it may stand behind a padding
            found = (_projection_before(graph, operand, through) for operand in node.operands)
            return next((layer for layer in found if layer), None)
        name = node.operands[0] if node.operands else None
    return None


def _projection_after(graph: Graph, node: Node) -> str | None:
    while True:
        users = graph.users(node.name)
        if len(users) != 1:
            return None
        node = users[0]
        if node.op in PROJECTIONS:
            return node.name


def _own_name(graph: Graph, node: Node, weights: frozenset[str], prefix: str) -> str:
    """The model's own name for the module, in KerasHub's words where there are some."""
    parts = _module_path(graph, node, weights)
    if not parts:
        if node.op == "layers.Dropout" and graph[node.used[0]].op == "ops.softmax":
            return "attention_dropout"
        return snake(str(node.attrs["graph"]).removeprefix(prefix) if node.op in CALLS else node.op.partition(".")[2])
    if parts[-1].isdigit():
        return "_".join(parts[-2:])
    if parts[-1] in GENERIC_NAMES and len(parts) > 1:
        return snake("_".join(parts[-2:]))
    return LAYER_NAMES.get(parts[-1], snake(parts[-1]))


def _qualified(graph: Graph, node: Node, weights: frozenset[str]) -> str:
    """A longer name, for when the short one is taken."""
    parts = _module_path(graph, node, weights)
    return snake("_".join(parts[-2:])) if parts else snake(node.op.partition(".")[2] or "layer")


def _module_path(graph: Graph, node: Node, weights: frozenset[str]) -> list[str]:
    if node.op in CALLS:
        return [part for part in str(node.attrs["path"]).split(".") if part]
    parameter = first_parameter(graph, node, weights)
    if parameter is None:
        return []
    *module, own = parameter.lstrip("@/").split(".")
    # A weight that a module holds beside its layers says itself what it is.
    return module if _LAYER_WEIGHT.match(own) else [*module, own]


def _unused(wish: str, qualified: str, taken: set[str]) -> str:
    if wish not in taken:
        return wish
    name, n = qualified, 1
    while name in taken:
        n += 1
        name = f"{qualified}{n}"
    return name
