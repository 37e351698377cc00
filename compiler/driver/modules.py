"""What became of each module of the model: for --explain."""

import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from hf2khc.ir.analysis import first_parameter, weight_values
from hf2khc.ir.graph import CALLS, Graph, Node, Program, callees, join
from hf2khc.passes.pipeline import every_pass


@dataclass(frozen=True)
class Module:
    """A module of the model, or several that are one layer of a loop.

    Args:
        path: its path in the model, `{i}` for the number of a layer in a loop.
        became: a class of the package, or a layer of Keras, with its name there.
        rules: the rules and passes that made it.
    """

    path: str
    became: str
    rules: tuple[str, ...] = ()


def modules(program: Program) -> tuple[Module, ...]:
    """A row for every module that owns a class or a layer, owners before what they own."""
    return (Module("", program.entry), *_below(program, program.main, ""))


def _below(program: Program, graph: Graph, prefix: str) -> Iterator[Module]:
    weights = weight_values(graph)
    for node in graph:
        if node.op in CALLS:
            path = join(prefix, str(node.attrs["path"]))
            for name in callees(node):
                yield Module(path, f"{name}{_named(node)}", _rules(node))
                yield from _below(program, program.graphs[name], path)
        elif node.level == "layers":
            parameter = first_parameter(graph, node, weights)
            if parameter is not None:
                path = join(prefix, parameter.lstrip("@")).rpartition(".")[0]
                yield Module(path, f"keras.{node.op}{_named(node)}", _rules(node))


def _named(node: Node) -> str:
    return f" {node.attrs['name']}" if node.attrs.get("name") else ""


def _rules(node: Node) -> tuple[str, ...]:
    return tuple(sorted(node.origin & _known()))


@functools.cache
def _known() -> frozenset[str]:
    """Names of all passes, and of the rules in their files; an origin also names values of the trace."""
    steps = [step for _, step in every_pass()]
    files = [getattr(sys.modules[step.__module__], "RULES", ()) for step in steps]
    return frozenset({step.__name__ for step in steps} | {rule.name for rules in files for rule in rules})
