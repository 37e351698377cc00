"""The sublayers and weights that a class owns, and how they are constructed and built."""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from hf2khc.diagnostics import fail
from hf2khc.ir.expr import same
from hf2khc.ir.graph import CALLS, Graph, Node
from hf2khc.write.analysis import Analysis
from hf2khc.write.layer_facts import reserved_attributes
from hf2khc.write.names import RESERVED, clean

INDEX = "{i}"


@dataclass(frozen=True)
class Member:
    """A sublayer, a list of sublayers, or a weight.

    Args:
        node: the node that constructs it: the first one of its name.
        attribute: the Python attribute.
        element: for a list, what one of its layers is called; else empty.
        index: for a single layer kept in a list, its index there.
        owner: what has the attribute.
    """

    node: Node
    attribute: str
    element: str = ""
    index: str = ""
    owner: str = "self"

    @property
    def reference(self) -> str:
        """What a single layer or weight is called in `call`."""
        whole = f"{self.owner}.{self.attribute}"
        return f"{whole}[{self.index}]" if self.index else whole


def members(analysis: Analysis, graph: Graph, reserved: Set[str] = frozenset()) -> Mapping[str, Member]:
    """Members by the name of every node that uses them; nodes of one name share one.

    Args:
        analysis: the plan.
        graph: the graph of the class.
        reserved: attributes that the class has already, beside those of every layer and model.
    """
    taken = {field.name for field in analysis.plan.fields} | set(graph.parameters) | reserved_attributes() | RESERVED
    taken |= reserved
    by_name: dict[str, Member] = {}
    found: dict[str, Member] = {}
    lists = _lists(analysis.printed(graph.name))
    for node in analysis.printed(graph.name):
        if node.op in CALLS or node.op.startswith("layers."):
            name = _layer_name(node)
            if name not in by_name:
                by_name[name] = _member(node, name, lists, taken)
            _check_same(by_name[name].node, node)
            _check_weights(analysis, graph, by_name[name].node, node)
            found[node.name] = by_name[name]
        elif node.op == "param" or (node.op == "const" and analysis.constant(graph, node.name[1:]) is None):
            found[node.name] = Member(node, _weight_attribute(node.name, taken))
        else:
            continue
        if not found[node.name].index:
            taken |= {found[node.name].attribute}
    return found


def _layer_name(node: Node) -> str:
    name = node.attrs.get("name")
    if not isinstance(name, str) or not name:
        raise fail("unnamed-layer", f"%{node.name} has no name", location=str(node.loc or ""))
    return name


def _lists(nodes: Sequence[Node]) -> set[str]:
    names = (node.attrs.get("name", "") for node in nodes if node.op == "loop")
    return {name for name in names if isinstance(name, str) and INDEX in name}


def _member(node: Node, name: str, lists: set[str], taken: set[str]) -> Member:
    if INDEX in name:
        return _list_member(node, name, taken)
    numbered = re.fullmatch(r"(.*?)(\d+)", name)
    if numbered and numbered[1] + INDEX in lists:
        return Member(node, _list_attribute(numbered[1] + INDEX), "", numbered[2])
    attribute = clean(name) if not name.isidentifier() else name
    return Member(node, attribute if attribute not in taken else _free(f"{attribute}_layer", taken))


def _list_member(node: Node, name: str, taken: set[str]) -> Member:
    element = _element(name)
    return Member(node, _list_attribute(name), element if element not in RESERVED else "layer")


def _element(name: str) -> str:
    return name.replace(INDEX, "").strip("_")


def _list_attribute(name: str) -> str:
    plural = f"{_element(name)}s"
    return plural if plural not in reserved_attributes() else f"{_element(name)}_list"


def _weight_attribute(path: str, taken: set[str]) -> str:
    parts = path.lstrip("@/").split(".")
    if parts[-1] in ("weight", "bias") and len(parts) > 1:
        parts = [f"{parts[-2]}_{parts[-1]}"]
    name = clean(parts[-1])
    return name if name not in taken else _free(f"{name}_weight", taken)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _check_same(first: Node, second: Node) -> None:
    """Two nodes of one name must be the same layer called twice."""
    if first is second:
        return
    keys = {*first.attrs, *second.attrs} - {"reverse", "start", "count", "carry"}
    differing = [k for k in sorted(keys) if not _equal(first.attrs.get(k), second.attrs.get(k))]
    kinds = {"call" if node.op == "loop" else node.op for node in (first, second)}
    if len(kinds) > 1 or (differing and INDEX not in str(first.attrs.get("name"))):
        message = f"%{first.name} and %{second.name} have one name but differ in {', '.join(differing) or 'kind'}"
        raise fail("layer-name", message, location=str(second.loc or ""))


def _check_weights(analysis: Analysis, graph: Graph, first: Node, second: Node) -> None:
    """One layer has one set of weights."""
    own = [n.operands[len(analysis.data(graph, n)) :] for n in (first, second)]
    if own[0] != own[1]:
        message = f"%{first.name} and %{second.name} have one name and different weights"
        raise fail("layer-name", message, location=str(second.loc or ""))


def _equal(a, b) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a == b or (
        not isinstance(a, str | tuple) and not isinstance(b, str | tuple) and None not in (a, b) and same(a, b)
    )
