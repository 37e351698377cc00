"""New nodes from the template of a matched rule."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hf2khc.diagnostics import fail
from hf2khc.ir.expr import same
from hf2khc.ir.graph import Graph, Node
from hf2khc.ir.infer import infer
from hf2khc.ir.signatures import parameters, slot_names
from hf2khc.ir.text import format_node
from hf2khc.ir.types import Tensor, Type
from hf2khc.rewrite.check import is_number
from hf2khc.rewrite.evaluate import evaluate
from hf2khc.rewrite.matcher import Match
from hf2khc.rewrite.pattern import Alternatives, Call, Expression, Optional, Rest, Variable, names


@dataclass
class Builder:
    """Adds nodes in place of a root: typed, named after it, with the origin of what they replace.

    Args:
        graph: the graph the operands live in.
        root: the node to be replaced; the last node made keeps its name and type.
        why: name of the rule or pass, added to the origins.
        replaced: every node whose origin goes into the new ones; the root alone by default.
        taken: names made elsewhere for the same graph.
    """

    graph: Graph
    root: Node
    why: str
    replaced: Iterable[Node] = ()
    taken: set[str] = field(default_factory=set)

    def __post_init__(self):
        self.nodes: dict[str, Node] = {}
        replaced = tuple(self.replaced) or (self.root,)
        self.origin = frozenset({self.why}).union(*(node.origin for node in replaced))

    def type_of(self, name: str | None) -> Type | None:
        if name is None:
            return None
        return self.nodes[name].type if name in self.nodes else self.graph[name].type

    def tensor(self, name: str | None) -> Tensor:
        """The type of a value, made here or before."""
        type_ = self.type_of(name)
        assert isinstance(type_, Tensor)
        return type_

    def add(self, op: str, *operands: str | None, type: Type | None = None, title: str = "", **attrs: Any) -> str:
        """A new inner node, called after the root and `title` or the op; its type is inferred unless given."""
        if type is None:
            type = infer(op, tuple(map(self.type_of, operands)), attrs)
        name = self.graph.fresh(f"{self.root.name.lstrip('@')}_{title or op.rpartition('.')[2]}", self.taken)
        self.taken.add(name)
        self.nodes[name] = Node(
            name, op, trimmed(operands), _without_defaults(op, attrs), type, self.root.loc, self.origin
        )
        return name

    def finish(self, op: str, *operands: str | None, **attrs: Any) -> list[Node]:
        """The root's replacement: its name and type, a cast behind it where Keras computes another kind of number."""
        kept = _without_defaults(op, attrs)
        node = Node(self.root.name, op, trimmed(operands), kept, self.root.type, self.root.loc, self.origin)
        if not op.startswith("ops."):
            return [*self.nodes.values(), node]
        made = infer(op, tuple(map(self.type_of, operands)), attrs)
        self._check_shape(node, made)
        if isinstance(made, Tensor) and isinstance(self.root.type, Tensor) and not _same_kind(made, self.root.type):
            inner = self.add(op, *operands, type=made, **attrs)
            dtype = self.root.type.dtype
            node = Node(self.root.name, "ops.cast", (inner,), {"dtype": dtype}, self.root.type, node.loc, self.origin)
        return [*self.nodes.values(), node]

    def _check_shape(self, node: Node, made: Type) -> None:
        wanted, got = (t if isinstance(t, tuple) else (t,) for t in (self.root.type, made))
        agree = len(wanted) == len(got) and all(
            w.rank == g.rank and all(map(same, w.shape, g.shape)) for w, g in zip(wanted, got, strict=True)
        )
        if not agree:
            shown = f"{format_node(self.root)}\n{format_node(node)}"
            raise fail("rule-type", f"{self.why} makes {_show(made)} of {_show(self.root.type)}", excerpt=shown)


def build(graph: Graph, found: Match, taken: set[str]) -> tuple[list[Node], dict[str, str]]:
    """New nodes for a match, and uses to redirect where the template is a variable."""
    rule = found.rule
    root = graph[found.root]
    builder = Builder(graph, root, rule.name, [graph[name] for name in found.nodes], taken)
    template = _chosen(rule.template, found.bindings)
    if isinstance(template, Variable):
        name = str(found.bindings[template.name])
        if _show(graph[name].type) != _show(root.type) and not _same_tensors(graph[name].type, root.type):
            shown = f"{format_node(root)}\n{format_node(graph[name])}"
            raise fail("rule-type", f"{rule.name} replaces a value by one of another type", excerpt=shown)
        return [], {root.name: name}
    assert isinstance(template, Call)
    operands, attrs = _call(builder, found, template)
    return builder.finish(template.op, *operands, **attrs), {}


def _call(builder: Builder, found: Match, call: Call) -> tuple[list[str | None], dict[str, Any]]:
    """Operands and attributes of a call, inner nodes made."""
    bindings: dict[str, Any] = {**found.bindings, "root": found.root}
    operands: list[str | None] = []
    attrs: dict[str, Any] = {}
    slots = slot_names(call.op)
    for index, argument in enumerate(call.arguments):
        argument = _chosen(argument, bindings)
        if isinstance(argument, Rest):
            operands += bindings[argument.name]
        elif is_number(found.rule, argument) and not (isinstance(argument, Variable) and argument.name not in bindings):
            operands.append(None)
            attrs[slots[index]] = evaluate(argument, builder.graph, bindings)
        else:
            operands.append(_operand(builder, found, argument, bindings))
    for keyword in call.keywords:
        value = _chosen(keyword.value, bindings)
        if not (isinstance(value, Variable) and value.name not in bindings):
            attrs[keyword.name] = evaluate(value, builder.graph, bindings)
    return operands, attrs


def _operand(builder: Builder, found: Match, argument: Expression, bindings: Mapping[str, object]) -> str | None:
    if isinstance(argument, Variable | Optional):
        value = bindings.get(argument.name)
        return None if value is None else str(value)
    assert isinstance(argument, Call)
    operands, attrs = _call(builder, found, argument)
    return builder.add(argument.op, *operands, **attrs)


def _chosen(expression: Expression, bindings: Mapping[str, object]) -> Expression:
    """The first alternative all variables of which are bound."""
    if not isinstance(expression, Alternatives):
        return expression
    for option in expression.options:
        if all(v.name in bindings or isinstance(v, Optional) or v.name == "root" for v in names(option)):
            return _chosen(option, bindings)
    return _chosen(expression.options[-1], bindings)


def trimmed(operands: Iterable[str | None]) -> tuple[str | None, ...]:
    """Operands without those at the end that attributes stand for."""
    found = tuple(operands)
    while found and found[-1] is None:
        found = found[:-1]
    return found


def _without_defaults(op: str, attrs: Mapping[str, object]) -> dict[str, object]:
    """Attributes without those that say nothing: `none` and `false` where Keras has the same default."""
    if not op.startswith(("ops.", "layers.")):
        return dict(attrs)
    known = parameters(op)
    return {
        name: value
        for name, value in attrs.items()
        if not ((value is None or value is False) and name in known and known[name].default is value)
    }


_KINDS = {"int64": "int", "int32": "int"}


def _same_kind(a: Tensor, b: Tensor) -> bool:
    """Whether two dtypes are equal; Keras prefers 32 bits for integers where torch has 64, so these count as one."""
    return _KINDS.get(a.dtype, a.dtype) == _KINDS.get(b.dtype, b.dtype)


def _same_tensors(a: Type, b: Type) -> bool:
    return (
        isinstance(a, Tensor)
        and isinstance(b, Tensor)
        and _same_kind(a, b)
        and a.rank == b.rank
        and all(map(same, a.shape, b.shape))
    )


def _show(type_: Type) -> str:
    return ", ".join(map(str, type_)) if isinstance(type_, tuple) else str(type_)


__all__ = ["Builder", "build"]
