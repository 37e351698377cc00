"""What the passes over constants share: walking them, and building what is computed in their place."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from hf2khc.ir.analysis import module_paths
from hf2khc.ir.expr import Expr
from hf2khc.ir.graph import Graph, Node, Program, join
from hf2khc.ir.signatures import WHOLE
from hf2khc.rewrite.build import Builder

# A graph and its constants, by the name of their nodes -> the graph that reads others.
Transform = Callable[[Graph, Mapping[str, np.ndarray]], Graph]


def map_constants(program: Program, transform: Transform) -> Program:
    """The program with each graph as `transform` leaves it, without the constants that then no graph reads."""
    paths = module_paths(program)

    def value(graph: Graph, node: Node) -> np.ndarray:
        return program.constants[join(paths[graph.name], node.name[1:])]

    found = program.map(lambda graph: transform(graph, {node.name: value(graph, node) for node in graph.of("const")}))
    read = {join(paths[graph.name], node.name[1:]) for graph in found.graphs.values() for node in graph.of("const")}
    return replace(found, constants={path: array for path, array in program.constants.items() if path in read})


def as_value(graph: Graph, const: Node, taken: set[str]) -> Node:
    """The constant under the name of a value that is computed; the name is added to those taken."""
    name = graph.fresh(const.name.rpartition(".")[2].lstrip("@/"), taken)
    taken.add(name)
    return replace(const, name=name)


def positions(
    builder: Builder, title: str, size: int | Expr, axis: int, rank: int, dtype: str = "int64", step: int = 1
) -> str:
    """A new value that counts in steps along one axis of a shape of that rank, whose other axes are 1."""
    name = builder.add("ops.arange", start=0, stop=size, dtype=dtype, title=title)
    if step != 1:
        name = builder.add("ops.multiply", name, x2=step, title=f"{title}_steps")
    if rank > 1:
        others = tuple(other for other in range(rank) if other != axis)
        name = builder.add("ops.expand_dims", name, axis=others, title=f"{title}_axes")
    return name


def is_beginning(entry: object) -> bool:
    """Whether an entry of an index takes the beginning of an axis, or all of it."""
    if entry in (WHOLE, "ellipsis"):
        return True
    return isinstance(entry, tuple) and entry[0] == "slice" and entry[1] in (None, 0) and entry[3] in (None, 1)
