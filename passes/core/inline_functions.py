"""Inline modules that own no parameter, or read one of a module that they lie in."""

from hf2khc.ir.analysis import has_parameters, module_paths
from hf2khc.ir.graph import Graph, Program
from hf2khc.ir.inline import inline_calls


def inline_functions(program: Program) -> Program:
    """Put activations, dropout, rotary tables and their like in place of their calls.

    A module without parameters is a function; as a class of its own it would hide an idiom from the rules. One that
    is handed a parameter of the module around it (a router its correction) would be another class in every layer.

    Before:

        graph GELU(%x: f32[batch, 8]) {
          %gelu: f32[batch, 8] = aten.gelu(%x)
          return %gelu
        }

        graph MLP(%x: f32[batch, 8]) {
          %act: f32[batch, 8] = call(%x, graph="GELU", path="act")
          return %act
        }

        entry MLP

    After:

        graph MLP(%x: f32[batch, 8]) {
          %gelu: f32[batch, 8] = aten.gelu(%x)
          return %gelu
        }

        entry MLP
    """
    owns, paths = has_parameters(program), module_paths(program)
    inlined = inline_calls(
        program, lambda callee, call: not owns[callee.name] or _is_handed(callee, paths[callee.name])
    )
    return inlined.map(lambda graph: _with_its_own(graph, paths[graph.name]))


def _is_handed(graph: Graph, path: str) -> bool:
    """Whether a module reads a parameter of one that it lies in, the model itself aside."""
    owners = (node.name[2:].rpartition(".")[0] for node in graph.of("param") if node.name.startswith("@/"))
    return any(owner and path.startswith(f"{owner}.") for owner in owners)


def _with_its_own(graph: Graph, path: str) -> Graph:
    """Parameters of a module by their paths from it, those that came from within it, too."""
    inside = f"@/{path}."
    names = {node.name: f"@{node.name[len(inside) :]}" for node in graph.of("param") if node.name.startswith(inside)}
    known = {name: own for name, own in names.items() if own in graph}
    graph = graph.rewired(redirect=known) if known else graph
    return graph.renamed({name: own for name, own in names.items() if name not in known}) if names else graph
