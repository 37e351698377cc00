"""Give every class of the package its name."""

from collections import Counter
from collections.abc import Container

from hf2khc.ir.graph import Graph, Node, Program


def name_graphs(program: Program) -> Program:
    """Name graphs after their module's class; where one class computes several things, the others get a letter.

    A number at the end would do harm: Keras counts layers of one class in the keys of a weights file (`block_1`).

    Before:

        graph Block_7(%x: f32[batch, 8]) of Block {
          %y: f32[batch, 8] = ops.relu(%x)
          return %y
        }

        graph Block_9(%x: f32[batch, 8]) of Block {
          %y: f32[batch, 8] = ops.tanh(%x)
          return %y
        }

        graph Model(%x: f32[batch, 8]) {
          %a: f32[batch, 8] = call(%x, graph="Block_7", path="a")
          %b: f32[batch, 8] = call(%a, graph="Block_9", path="b")
          return %b
        }

        entry Model

    After:

        graph Block(%x: f32[batch, 8]) {
          %y: f32[batch, 8] = ops.relu(%x)
          return %y
        }

        graph BlockB(%x: f32[batch, 8]) of Block {
          %y: f32[batch, 8] = ops.tanh(%x)
          return %y
        }

        graph Model(%x: f32[batch, 8]) {
          %a: f32[batch, 8] = call(%x, graph="Block", path="a")
          %b: f32[batch, 8] = call(%a, graph="BlockB", path="b")
          return %b
        }

        entry Model
    """
    names: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for graph in program.callees_first():
        names[graph.name] = _name(graph.cls, counts, names.values())
    graphs = [_renamed(graph, names) for graph in program.graphs.values()]
    return Program({g.name: g for g in graphs}, names[program.entry], program.outputs, program.constants)


def _name(cls: str, counts: Counter[str], taken: Container[str]) -> str:
    while True:
        counts[cls] += 1
        name = cls if counts[cls] == 1 else cls + _letters(counts[cls])
        if name not in taken:
            return name


def _letters(number: int) -> str:
    """B, C ... Z, AA, AB ..."""
    text = ""
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("A") + rest) + text
    return text


def _renamed(graph: Graph, names: dict[str, str]) -> Graph:
    def node_renamed(node: Node) -> Node:
        if "graph" not in node.attrs:
            return node
        given = node.attrs["graph"]
        return node.with_attrs(graph=tuple(names[n] for n in given) if isinstance(given, tuple) else names[given])

    return graph.replaced([node_renamed(node) for node in graph], name=names[graph.name])
