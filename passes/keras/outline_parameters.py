"""Move parameters that several layers of the model read into layers that return them."""

from dataclasses import replace

from hf2khc.ir.analysis import weight_values
from hf2khc.ir.graph import CALLS, Graph, Node, Program
from hf2khc.ir.outline import class_prefix, outline, unused
from hf2khc.passes.keras.outline_entry import apart, regions


def outline_parameters(program: Program) -> Program:
    """Make a layer of every parameter that the model's own body hands to layers.

    A functional model has no variables of its own, and a layer can be handed no more than the result of another.

    Before:

        graph Scale(%x: f32[batch, 4], %scale: f32[4]) {
          %y: f32[batch, 4] = ops.multiply(%x, %scale)
          return %y
        }

        graph Model(%x: f32[batch, 4]) {
          param @scale: f32[4]
          %y: f32[batch, 4] = call(%x, @scale, graph="Scale", path="scale")
          return %y
        }

        entry Model

    After:

        graph ModelParameter(%x: f32[batch, 4]) {
          param @scale: f32[4]
          %scale: f32[4] = ops.convert_to_tensor(@scale)
          return %scale
        }

        graph Scale(%x: f32[batch, 4], %scale: f32[4]) {
          %y: f32[batch, 4] = ops.multiply(%x, %scale)
          return %y
        }

        graph Model(%x: f32[batch, 4]) {
          %scale: f32[4] = call(%x, graph="ModelParameter", path="")
          %y: f32[batch, 4] = call(%x, %scale, graph="Scale", path="scale")
          return %y
        }

        entry Model
    """
    entry, graphs, prefix = apart(program.main), dict(program.graphs), class_prefix(program)
    for name in _handed(entry):
        title = unused(f"{prefix}Parameter", graphs)
        entry, graphs[title] = _outlined(entry, entry[name], title)
    graphs[entry.name] = entry
    return program.with_graphs(graphs.values())


def _handed(entry: Graph) -> list[str]:
    """The parameters that a layer of the package is called with, or that more than one layer would have to own."""
    weights = weight_values(entry)
    readers = [{o for o in node.used if o in weights} for node in entry.of(*CALLS)]
    found = entry.behind(set().union(*readers))
    owned = [entry.behind(o for name in region for o in entry[name].used if o in weights) for region in regions(entry)]
    return [n.name for n in entry.of("param") if n.name in found or sum(n.name in names for names in owned) > 1]


def _outlined(entry: Graph, parameter: Node, name: str) -> tuple[Graph, Graph]:
    """The model with a call in place of the parameter, and the layer called."""
    user = entry.users(parameter.name)[0]
    title, origin = entry.fresh(_title(parameter.name)), user.origin | {"outline_parameters"}
    value = Node(title, "ops.convert_to_tensor", (parameter.name,), {}, parameter.type, user.loc, origin)
    read = [replace(n, operands=tuple(title if o == parameter.name else o for o in n.operands)) for n in entry]
    outputs = [title if o == parameter.name else o for o in entry.outputs]
    return outline(entry.replaced([*read, value], outputs=outputs), frozenset({title}), name)


def _title(name: str) -> str:
    return name[1:].rsplit(".", 1)[-1]
