"""From one node to the expression that computes it, given names for the values it reads."""

from collections.abc import Callable, Mapping

from hf2khc.diagnostics import fail
from hf2khc.ir.graph import Graph, Node
from hf2khc.ir.types import Tensor
from hf2khc.write.analysis import Analysis, call_keywords
from hf2khc.write.layer_facts import takes_list, takes_training
from hf2khc.write.members import Member
from hf2khc.write.names import input_names
from hf2khc.write.operations import Text, operation, plain_operands
from hf2khc.write.plan import CONSTANT
from hf2khc.write.scope import Scope

Read = Callable[[str | None], Text | None]


class Render:
    """Renders nodes of one graph.

    Args:
        analysis: the plan.
        graph: the graph.
        scope: spells names of attributes.
        members: the member behind every node that has one.
        training: whether `training` is an argument of the method, to be handed on.
    """

    def __init__(self, analysis: Analysis, graph: Graph, scope: Scope, members: Mapping[str, Member], training: bool):
        self.analysis = analysis
        self.graph = graph
        self.scope = scope
        self.members = members
        self.training = training
        self.pinned = _pinned(analysis, graph)

    def node(self, node: Node, read: Read) -> Text:
        """The expression of a node; `read` gives those of its operands."""
        if node.op == "param":
            return Text(self.members[node.name].reference)
        if node.op == "const":
            return self._constant(node)
        if node.op == "call":
            return Text(
                f"{self.members[node.name].reference}({', '.join(self._call_arguments(node, node.operands, read))})"
            )
        if node.op.startswith("layers."):
            return self._layer(node, read)
        if node.op.startswith("ops."):
            types = [self.graph[o].type for o in node.operands if o is not None]
            single = [t for t in types if isinstance(t, Tensor)]
            plain = plain_operands(node, single, [self.pinned[o] for o in node.used], self.scope)
            return operation(node, [read(o) for o in node.operands], self.scope, plain)
        raise fail(
            "not-keras-level", f"%{node.name}: {node.op} cannot be written as Keras code", location=str(node.loc or "")
        )

    def iteration(self, node: Node, element: str, carried: list[str], read: Read) -> str:
        """The call of one iteration of a loop."""
        arguments = [Text(name) for name in carried] + [read(o) for o in node.operands[len(carried) :]]
        texts = iter(arguments)
        return f"{element}({', '.join(self._call_arguments(node, node.operands, lambda _: next(texts)))})"

    def _constant(self, node: Node) -> Text:
        if node.name in self.members:
            return Text(self.members[node.name].reference)
        dtype = "int32" if node.tensor.dtype == "int64" else node.tensor.dtype
        value = self.scope.field(CONSTANT + node.name[1:])
        return Text(f'ops.convert_to_tensor({value}, dtype="{dtype}")')

    def _call_arguments(self, node: Node, operands, read: Read) -> list[str]:
        callee = self.analysis.plan.program.graphs[str(node.attrs["graph"])]
        names = input_names(given.name for given in callee.inputs)
        arguments = []
        for position, (operand, given) in enumerate(zip(operands, callee.inputs, strict=True)):
            value = read(operand)
            text = "None" if value is None else value.text
            arguments.append(text if position == 0 else f"{names[given.name]}={text}")
        if self.training and self.analysis.training(callee.name):
            arguments.append("training=training")
        return arguments

    def _layer(self, node: Node, read: Read) -> Text:
        values = [read(o) for o in self.analysis.data(self.graph, node)]
        texts = ["None" if value is None else value.text for value in values]
        if takes_list(node.op):
            texts = [f"[{', '.join(texts)}]"]
        keywords = [f"{key}={self.scope.value(value)}" for key, value in call_keywords(node).items()]
        if self.training and takes_training(node.op):
            keywords.append("training=training")
        return Text(f"{self.members[node.name].reference}({', '.join(texts + keywords)})")


def _pinned(analysis: Analysis, graph: Graph) -> Mapping[str, bool]:
    """Whether a value keeps its floating dtype under every dtype policy, because the code names the dtype."""
    pinned: dict[str, bool] = {}
    for node in graph:
        type_ = node.type[0] if isinstance(node.type, tuple) else node.type
        named = node.attrs.get("dtype") is not None or node.op == "const"
        if not type_.is_floating:
            pinned[node.name] = False
        elif named or not node.op.startswith("ops."):
            pinned[node.name] = named or (node.op == "item" and pinned[node.operands[0] or ""])
        else:
            floats = [o for o in node.used if _floating(graph[o])]
            pinned[node.name] = any(pinned[o] for o in floats) or not floats
    return pinned


def _floating(node: Node) -> bool:
    type_ = node.type[0] if isinstance(node.type, tuple) else node.type
    return type_.is_floating
