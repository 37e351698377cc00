"""Which values are written inside the one expression that uses them."""

from collections.abc import Iterable

from hf2khc.ir.graph import CALLS, LEAVES, Graph, Node
from hf2khc.write.analysis import Analysis
from hf2khc.write.cache import is_cached
from hf2khc.write.names import clean
from hf2khc.write.operations import Text
from hf2khc.write.plan import KEEP, UPDATE, WINDOW
from hf2khc.write.render import Render

# An expression longer than this, or nested deeper, is taken apart.
_LENGTH = 66
_DEPTH = 3


class Inlining:
    """Decides for every value whether it gets a name.

    Args:
        analysis: the plan.
        graph: the graph.
        render: prints single nodes.
        functional: whether this is the body of a functional model, where every layer has a line of its own.
    """

    def __init__(self, analysis: Analysis, graph: Graph, render: Render, functional: bool):
        self.analysis = analysis
        self.graph = graph
        self.render = render
        self.functional = functional
        self.inlined: set[str] = set()
        self._depth: dict[str, int] = {}
        self._printed = analysis.printed(graph.name)
        self._uses = self._count()
        for node in self._printed:
            if node.op not in (*LEAVES, "item"):
                self._absorb(node)
        self._absorb_returns()
        # What is kept is read where the layer returns.
        self.inlined |= {node.name for node in graph.of(KEEP)}

    def data(self, node: Node) -> tuple[str | None, ...]:
        """The operands of a node that the code reads."""
        return self.analysis.data(self.graph, node)

    def variables_behind(self, names: Iterable[str | None]) -> set[str]:
        """The variables that expressions read: inlined values looked through."""
        found: set[str] = set()
        for name in names:
            if name is None:
                continue
            node = self.graph[name]
            if name in self.inlined:
                found |= self.variables_behind(self.data(node))
            elif node.op not in ("param", "const"):
                found.add(name)
        return found

    def _count(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for name in [o for node in self._printed for o in self.data(node)] + list(self.graph.outputs):
            if name is not None:
                counts[name] = counts.get(name, 0) + 1
        return counts

    def _absorb(self, node: Node) -> None:
        """Write operands inside `node` as long as the expression stays short."""
        if node.op not in ("loop", "scan"):
            for operand in self.data(node):
                if operand is not None and self._may(operand) and self._depth.get(operand, 0) + 1 < _DEPTH:
                    self.inlined.add(operand)
                    if len(self._text(node.name).text) > _LENGTH:
                        self.inlined.discard(operand)
        inside = [self._depth.get(o, 0) + 1 for o in self.data(node) if o in self.inlined and o is not None]
        self._depth[node.name] = max(inside, default=0)

    def _may(self, name: str) -> bool:
        node = self.graph[name]
        if node.op in (*LEAVES, "item", *CALLS) or isinstance(node.type, tuple) or self._uses[name] != 1:
            return False
        if any(user.op in (UPDATE, KEEP, WINDOW) for user in self.graph.users(name)):
            return False
        return not (self.functional and node.op.startswith("layers."))

    def _absorb_returns(self) -> None:
        # A layer with a cache returns in two ways.
        if self.functional or len(self.graph.outputs) != 1 or is_cached(self.analysis.plan, self.graph.name):
            return
        name = self.graph.outputs[0]
        node = self.graph[name]
        if (
            node.op not in (*LEAVES, "item", "loop", "scan")
            and not isinstance(node.type, tuple)
            and self._uses[name] == 1
        ):
            self.inlined.add(name)

    def _text(self, name: str) -> Text:
        return self.render.node(self.graph[name], self._read)

    def _read(self, name: str | None) -> Text | None:
        if name is None:
            return None
        node = self.graph[name]
        if name in self.inlined or node.op in ("param", "const"):
            return self._text(name)
        return Text(clean(name))
