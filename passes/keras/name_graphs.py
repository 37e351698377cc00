"""Give every class of the package its name."""

import re
from collections.abc import Iterator
from itertools import chain, combinations

from hf2khc.ir.graph import CALLS, Graph, Node, Program, callees, lettered
from hf2khc.ir.outline import class_prefix

# A letter or two, as `h` for hidden layers, would say nothing to a reader.
_WORD = re.compile("[A-Za-z][A-Za-z_]{2,}")
# Classes of torch that have the name of one of Keras's.
_OF_KERAS = frozenset({"Embedding", "Identity", "Sequential"})


def name_graphs(program: Program) -> Program:
    """Name graphs after their module's class; where one class computes several things, after their places, too.

    Where places do not tell them apart, the others get a letter.

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
    prefix = class_prefix(program)
    told = _told_apart(program, prefix)
    for graph in program.callees_first():
        name = told.get(graph.name, "")
        cls = prefix + graph.cls if graph.cls in _OF_KERAS else graph.cls
        names[graph.name] = name if name and name not in names.values() else lettered(cls, names.values())
    graphs = [_renamed(graph, names) for graph in program.graphs.values()]
    return Program({g.name: g for g in graphs}, names[program.entry], program.outputs, program.constants)


def _told_apart(program: Program, prefix: str) -> dict[str, str]:
    """Names for the graphs of a class that has several, after the places in the model where they stand.

    Of the words in the paths to a graph as few as no other graph of the class has together: `encoder` and `decoder`.
    """
    groups: dict[str, list[str]] = {}
    for graph in program.graphs.values():
        groups.setdefault(graph.cls, []).append(graph.name)
    words, found = _words(program), {}
    for cls, group in groups.items():
        for name in group if len(group) > 1 else ():
            others = [set(words[other]) for other in group if other != name]
            fewest = next((some for some in _subsets(words[name]) if not any(o.issuperset(some) for o in others)), ())
            if fewest:
                rest = cls.removeprefix(prefix)
                found[name] = cls.removesuffix(rest) + _joined([*map(_camel, fewest), rest])
    return found


def _words(program: Program) -> dict[str, list[str]]:
    """Of each graph the names that all paths to it, and all paths to its own parameters, have in common, in order."""
    paths: dict[str, list[list[str]]] = {name: [] for name in program.graphs}
    paths[program.entry].append([])
    for graph in reversed(program.callees_first()):
        for node in graph.of(*CALLS):
            parts = str(node.attrs["path"]).split(".")
            for callee in callees(node):
                paths[callee] += [[*before, *parts] for before in paths[graph.name]]
    found = {}
    for name, graph in program.graphs.items():
        own = [param.name[1:].split(".")[:-1] for param in graph.of("param")]
        full = [[*path, *parts] for path in paths[name] for parts in own or [[]]]
        first, *rest = full or [[]]
        plain = [part for part in first if _WORD.fullmatch(part) and all(part in path for path in rest)]
        found[name] = list(dict.fromkeys(plain))
    return found


def _subsets(words: list[str]) -> Iterator[tuple[str, ...]]:
    """Up to two words, then three; one that stands further out first."""
    return chain.from_iterable(combinations(words, count) for count in (1, 2, 3))


def _camel(word: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in word.split("_"))


def _joined(parts: list[str]) -> str:
    """Parts of a name in one, without what one repeats of the end of another: `EncDecAttention` and `Attention`."""
    name = ""
    for part in parts:
        ends = [k for k in range(len(part), 0, -1) if k == len(part) or part[k].isupper()]
        shared = next((k for k in ends if name.endswith(part[:k])), 0)
        name += part[shared:]
    return name


def _renamed(graph: Graph, names: dict[str, str]) -> Graph:
    def node_renamed(node: Node) -> Node:
        if "graph" not in node.attrs:
            return node
        given = node.attrs["graph"]
        return node.with_attrs(graph=tuple(names[n] for n in given) if isinstance(given, tuple) else names[given])

    return graph.replaced([node_renamed(node) for node in graph], name=names[graph.name])
