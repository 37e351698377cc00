"""From one node to the expression that computes it, given names for the values it reads."""

import functools
from collections.abc import Callable, Mapping, Sequence

from hf2khc.diagnostics import fail
from hf2khc.ir.expr import Expr, names_of
from hf2khc.ir.graph import Graph, Node, callee_of, callees, scan_parts
from hf2khc.ir.types import Tensor
from hf2khc.write.analysis import Analysis, call_keywords
from hf2khc.write.cache import passed_on
from hf2khc.write.cross_cache import CROSS, keeps
from hf2khc.write.layer_facts import takes_list, takes_training
from hf2khc.write.members import Member
from hf2khc.write.names import input_names
from hf2khc.write.operations import Text, operation, plain_operands
from hf2khc.write.plan import CONSTANT, KEEP, KEYS, SCANNED, STATE, WINDOW
from hf2khc.write.scope import Scope
from hf2khc.write.states import state_text

Read = Callable[[str | None], Text | None]

# Keras hands these their operands on as they are, and JAX takes no variable while it works out shapes.
_NO_VARIABLES = frozenset((
    "ops.any", "ops.ones_like", "ops.slice", "ops.slice_update", "ops.top_k", "ops.unstack", "ops.where",
    "ops.zeros_like",
))  # fmt: skip


class Render:
    """Renders nodes of one graph.

    Args:
        analysis: the plan.
        graph: the graph.
        scope: spells names of attributes.
        members: the member behind every node that has one.
        training: whether `training` is an argument of the method, to be handed on.
        policy: the expression for the compute dtype of the layer; empty where there is none to name.
        decodes: whether the method may run from any position on.
    """

    def __init__(
        self, analysis: Analysis, graph: Graph, scope: Scope, members: Mapping[str, Member], training: bool,
        policy: str = "", decodes: bool = False,
    ):  # fmt: skip
        self.analysis = analysis
        self.graph = graph
        self.scope = scope
        self.members = members
        self.training = training
        self.policy = policy
        self.decodes = decodes
        self.pinned = pinned_values(graph)
        # The expression for the cache that is handed to a layer, and the variables of those that are parts of it.
        self.cache = "cache"
        self.caches: Mapping[str, str] = {}
        # That for what the layer computed once; empty where there is none to hand on.
        self.cross = CROSS if keeps(analysis.plan, graph.name) else ""

    @functools.cached_property
    def graph_reads_cache(self) -> bool:
        """Whether how long the cache is has to be read off what is in it: no input says so."""
        named = any(KEYS in names_of(value) for node in self.graph for value in node.attrs.values())
        shown = any(isinstance(d, Expr) and d.text == KEYS for node in self.graph.inputs for d in node.tensor.shape)
        return named and not shown

    def node(self, node: Node, read: Read) -> Text:
        """The expression of a node; `read` gives those of its operands."""
        if node.op == "param":
            return Text(self.members[node.name].reference)
        if node.op == "const":
            return self._constant(node)
        if node.op == "call":
            return Text(f"{self.members[node.name].reference}({', '.join(self._call_arguments(node, read))})")
        if node.op.startswith("layers."):
            return self._layer(node, read)
        if node.op == KEEP:
            return self._required(node, read)
        if node.op == STATE:
            return Text(state_text(node, self._required(node, read).text, self.graph))
        if node.op.startswith("ops."):
            types = [self.graph[o].type for o in node.operands if o is not None]
            single = [t for t in types if isinstance(t, Tensor)]
            pinned = {self.pinned[o] for o in node.used}
            dtype = self._stream(node, read) if self._joins(node) else ""
            plain = plain_operands(node, single, {False} if dtype else pinned, self.scope)
            operands = [self._in_stream(o, read, plain, dtype) if dtype else read(o) for o in node.operands]
            if node.op in _NO_VARIABLES:
                operands = [self._as_tensor(o, text) for o, text in zip(node.operands, operands, strict=True)]
            return operation(node, operands, self.scope, plain)
        raise fail(
            "not-keras-level", f"%{node.name}: {node.op} cannot be written as Keras code", location=str(node.loc or "")
        )

    @staticmethod
    def _required(node: Node, read: Read) -> Text:
        value = read(node.operands[0])
        assert value is not None
        return value

    def _joins(self, node: Node) -> bool:
        """Whether an operation brings together values of the compute dtype and values that are float32 for good."""
        return len({self.pinned[o] for o in node.used if _floating(self.graph[o])}) == 2

    def _stream(self, node: Node, read: Read) -> str:
        """The expression for the compute dtype: that of the layer, or of an operand where the code is in none."""
        if self.policy:
            return self.policy
        free = (read(o) for o in node.used if _floating(self.graph[o]) and not self.pinned[o])
        return next((f"{value.text}.dtype" for value in free if value and value.text.isidentifier()), "")

    def _in_stream(self, name: str | None, read: Read, plain: bool, dtype: str) -> Text | None:
        """An operand, cast to the compute dtype where it is float32 for good: it must not promote the others."""
        value = read(name)
        if name is None or value is None or not self.pinned[name] or not _floating(self.graph[name]):
            return value
        node = self.graph[name]
        if node.op == "const" and name not in self.members:
            field = self.scope.field(CONSTANT + node.name[1:])
            if plain and node.tensor.shape == ():
                return Text(field)
            return Text(f"ops.convert_to_tensor({field}, dtype={dtype})")
        return Text(f"ops.cast({value.text}, {dtype})")

    def _as_tensor(self, name: str | None, text: Text | None) -> Text | None:
        """An operand, where it is a variable its value."""
        if name is None or text is None or self.graph[name].op not in ("param", "const"):
            return text
        is_variable = name in self.members and text.text == self.members[name].reference
        return Text(f"ops.convert_to_tensor({text.text})") if is_variable else text

    def result(self, name: str, text: str) -> str:
        """What a layer returns for a value, given its expression: of the compute dtype like all it returns."""
        pinned = self.policy and self.pinned[name] and _floating(self.graph[name])
        return f"ops.cast({text}, {self.policy})" if pinned else text

    def iteration(self, node: Node, element: str, carried: list[str], read: Read) -> str:
        """The call of one iteration of a loop."""
        arguments = [Text(name) for name in carried] + [read(o) for o in node.operands[len(carried) :]]
        texts = iter(arguments)
        return f"{element}({', '.join(self._call_arguments(node, lambda _: next(texts)))})"

    def carried(self, name: str, text: str) -> str:
        """What a scan begins with, in the dtype in which it computes."""
        return text if self.pinned[name] or not _floating(self.graph[name]) else f'ops.cast({text}, "{SCANNED}")'

    def one_entry(self, node: Node, given: Sequence[str], read: Read) -> str:
        """The call of a scan's layer on what is carried and one entry of each sequence.

        Args:
            node: the scan.
            given: the arguments for both.
            read: gives the expressions of what is the same for every entry.
        """
        shared = scan_parts(node, node.operands)[2]
        arguments = self._call_arguments(node, read, given, len(node.operands) - len(shared))
        return f"{self.members[node.name].reference}({', '.join(arguments)})"

    def _constant(self, node: Node) -> Text:
        if node.name in self.members:
            return Text(self.members[node.name].reference)
        dtype = "int32" if node.tensor.dtype == "int64" else node.tensor.dtype
        value = self.scope.field(CONSTANT + node.name[1:])
        return Text(f'ops.convert_to_tensor({value}, dtype="{dtype}")')

    def _call_arguments(self, node: Node, read: Read, given: Sequence[str] = (), count: int = 0) -> list[str]:
        """The arguments of a layer, all but the first by name; those `given` stand for the first `count` operands."""
        callee = self.analysis.plan.program.graphs[callee_of(node)]
        names = input_names(taken.name for taken in callee.inputs)
        arguments = list(given)
        for operand, taken in list(zip(node.operands, callee.inputs, strict=True))[count:]:
            value = read(operand)
            text = "None" if value is None else value.text
            arguments.append(f"{names[taken.name]}={text}" if arguments else text)
        if self.decodes:
            cache = self.caches.get(node.name, self.cache)
            arguments += passed_on(self.analysis.plan, callee.name, self.scope.start, cache)
            arguments += [f"{CROSS}={self.cross}"] if self.cross and keeps(self.analysis.plan, callee.name) else []
        if self.training and all(map(self.analysis.training, callees(node))):
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


def pinned_values(graph: Graph) -> Mapping[str, bool]:
    """Whether a value keeps its floating dtype under every dtype policy, because the code names the dtype.

    An operand of that kind among others is cast to the dtype of those.
    """
    pinned: dict[str, bool] = {}
    for node in graph:
        named = node.attrs.get("dtype") is not None or node.op in ("const", "scan")
        if not _floating(node):
            pinned[node.name] = False
        elif node.op in (KEEP, WINDOW, STATE) and not named:
            pinned[node.name] = pinned[node.used[0]]
        elif named or not node.op.startswith("ops."):
            pinned[node.name] = named or (node.op == "item" and pinned[node.operands[0] or ""])
        else:
            floats = [pinned[o] for o in node.used if _floating(graph[o])]
            pinned[node.name] = all(floats)
    return pinned


def _floating(node: Node) -> bool:
    type_ = node.type[0] if isinstance(node.type, tuple) else node.type
    return type_.is_floating
