"""Weight expressions as the text of a weight map's transform."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hf2khc.diagnostics import fail
from hf2khc.ir.expr import evaluate
from hf2khc.ir.graph import Graph, Node, join
from hf2khc.ir.types import Tensor
from hf2khc.write.layer_facts import op_parameters
from hf2khc.write.operations import LISTS

Env = Mapping[str, object]


@dataclass
class Leaf:
    """A transform with its sources: `param` or `const`, and absolute path, in the order of its names."""

    text: str
    sources: list[tuple[str, str]] = field(default_factory=list)


def weight_expression(graph: Graph, name: str, path: str, env: Env) -> Leaf:
    """The value `name` of a graph as a transform.

    Args:
        graph: the graph.
        name: a value computed from parameters or constants alone.
        path: module path of the instance.
        env: values of config fields and graph parameters.

    Raises:
        ConversionError: `weight-expression`, where the value depends on more than weights.
    """
    sources: dict[tuple[str, str], None] = {}
    _collect(graph, name, path, sources)
    order = list(sources)
    names = {key: "x" if len(order) == 1 else f"x{i}" for i, key in enumerate(order)}
    return Leaf(_Text(graph, path, env, names).of(name), order)


def _collect(graph: Graph, name: str, path: str, sources: dict[tuple[str, str], None]) -> None:
    node = graph[name]
    if node.op in ("param", "const"):
        sources.setdefault((node.op, join(path, node.name[1:])))
    elif node.op.startswith("ops.") or node.op == "item":
        for operand in node.used:
            _collect(graph, operand, path, sources)
    else:
        message = f"a weight of {graph.name} depends on %{node.name}, which is no parameter"
        raise fail("weight-expression", message, location=str(node.loc or ""))


class _Text:
    def __init__(self, graph: Graph, path: str, env: Env, names: Mapping[tuple[str, str], str]):
        self.graph = graph
        self.path = path
        self.env = env
        self.names = names

    def of(self, name: str) -> str:
        node = self.graph[name]
        if node.op in ("param", "const"):
            return self.names[node.op, join(self.path, node.name[1:])]
        if node.op == "item":
            return f"{self.of(node.used[0])}[{node.attrs['index']}]"
        if node.op == "ops.get_item":
            return self._get_item(node)
        return f"{node.op.removeprefix('ops.')}({', '.join(self._arguments(node))})"

    def _arguments(self, node: Node) -> list[str]:
        operands = [None if o is None else self.of(o) for o in node.operands]
        slots = [f"[{', '.join(map(str, operands))}]"] if node.op in LISTS else operands
        written: list[str] = []
        contiguous = True
        for (name, _), slot in zip(op_parameters(node.op), [*slots, *[None] * 16], strict=False):
            if name in node.attrs:
                text = repr(evaluate(node.attrs[name], self.env))
            elif slot is None:
                contiguous = False
                continue
            else:
                text = slot
            written.append(text if contiguous else f"{name}={text}")
        return written

    def _get_item(self, node: Node) -> str:
        """A key as `slice` (or `take` where it has steps), and a reshape where it adds or drops axes."""
        shape = self._shape(node.used[0])
        text = self.of(node.used[0])
        starts, sizes = [], []
        for axis, item in enumerate(_full_key(evaluate(node.attrs["key"], self.env), len(shape))):
            taken = range(shape[axis])[item] if isinstance(item, slice) else range(item % shape[axis], shape[axis])[:1]
            if taken.step != 1:
                text = f"take({text}, {list(taken)}, {axis})"
            starts.append(taken.start if taken.step == 1 else 0)
            sizes.append(len(taken))
        before = [s if start or s != n else n for s, start, n in zip(sizes, starts, shape, strict=True)]
        if any(starts) or before != shape:
            text = f"slice({text}, {tuple(starts)}, {tuple(sizes)})"
        target = self._shape(node.name)
        assert math.prod(target) == math.prod(sizes), f"%{node.name}: {target} is not {sizes}"
        return text if target == sizes else f"reshape({text}, {tuple(target)})"

    def _shape(self, name: str) -> list[int]:
        type_ = self.graph[name].type
        assert isinstance(type_, Tensor)
        return [int(str(evaluate(dim, self.env))) for dim in type_.shape]


def _full_key(key: Any, rank: int) -> list:
    """One slice or index per axis: the ellipsis spelled out, new axes left out (the result's shape has them)."""
    items = key if isinstance(key, tuple) and (not key or key[0] != "slice") else (key,)
    parts = [slice(*item[1:]) if isinstance(item, tuple) else item for item in items if item not in (None, "newaxis")]
    marks = [i for i, part in enumerate(parts) if part == "ellipsis"]
    at = marks[0] if marks else len(parts)
    rest = [part for part in parts if part != "ellipsis"]
    fill = [slice(None)] * (rank - len(rest))
    return rest[:at] + fill + rest[at:]
