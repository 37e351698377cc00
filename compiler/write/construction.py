"""The code that constructs and builds the members of a class."""

from collections.abc import Mapping
from dataclasses import dataclass

from hf2khc.diagnostics import fail
from hf2khc.ir.expr import Expr, same
from hf2khc.ir.graph import CALLS, Graph, Node, callee_of, callees, first_iterations, join
from hf2khc.ir.types import Tensor, same_type
from hf2khc.write.analysis import Analysis, child_path, constructor_attributes
from hf2khc.write.built import built_operands, read_axes
from hf2khc.write.iteration import iteration_text, kind_conditions
from hf2khc.write.layer_facts import constructor_defaults, constructor_name
from hf2khc.write.members import INDEX, Member
from hf2khc.write.names import input_names
from hf2khc.write.plan import CONSTANT, SCANNED, Field
from hf2khc.write.scope import Scope
from hf2khc.write.source_text import fitted

# Constructor arguments that are printed even where they equal the default.
_ALWAYS = ("epsilon",)
# Said of the layer that a scan calls.
_NO_GRADIENT = "# XLA has no gradient of a scan whose length TensorFlow does not know."


@dataclass(frozen=True)
class ClassHead:
    """What callers need to know of a printed class.

    Args:
        name: of the class.
        module: file name without `.py`.
        arguments: its constructor arguments in order; `source` is a config field, a parameter or a relative constant.
    """

    name: str
    module: str
    arguments: tuple[Field, ...]


class Construction:
    """Prints the constructor calls of one class.

    Args:
        analysis: the plan.
        graph: the graph of the class.
        scope: spells names.
        heads: the classes printed so far, by graph.
        builds: whether sublayers are built right away, as in a layer; a functional model builds them by calling.
        dtype: the expression every sublayer gets as its dtype; empty for the one that is usual.
    """

    def __init__(
        self, analysis: Analysis, graph: Graph, scope: Scope, heads: Mapping[str, ClassHead], builds: bool,
        dtype: str = "",
    ):  # fmt: skip
        self.analysis = analysis
        self.graph = graph
        self.scope = scope
        self.heads = heads
        self.builds = builds
        self.dtype = dtype or ("self.dtype_policy" if builds else "dtype")

    def lines(self, members: Mapping[str, Member]) -> list[str]:
        """Statements that construct every member, in order of first use."""
        lines: list[str] = []
        started: set[str] = set()
        made: set[tuple[str, str]] = set()
        for name, member in members.items():
            start = str(self.graph[name].attrs.get("start", 0)) if member.element else ""
            key = (member.node.name, start)
            if key in made:
                continue
            made.add(key)
            if (member.element or member.index) and member.attribute not in started:
                started.add(member.attribute)
                lines.append(f"self.{member.attribute} = []")
            lines += self._member(member, self.graph[name])
        return lines

    def _member(self, member: Member, node: Node) -> list[str]:
        if node.op in ("param", "const"):
            return [self._weight(member)]
        if member.element:
            return self._loop(member, node)
        text = self._constructor(node, str(node.attrs["name"]))
        if member.index:
            return ["layer = " + text, *self._build("layer", node), f"self.{member.attribute}.append(layer)"]
        compiled = []
        if node.op == "scan":
            compiled = [_NO_GRADIENT, f'self.{member.attribute}.supports_jit = keras.backend.backend() != "tensorflow"']
        return [f"self.{member.attribute} = {text}", *compiled, *self._build(f"self.{member.attribute}", node)]

    def _loop(self, member: Member, node: Node) -> list[str]:
        start, count = node.attrs.get("start", 0), node.attrs["count"]
        name = str(node.attrs["name"])
        body = [
            *self._kinds(node, name),
            *self._build("layer", node),
            f"self.{member.attribute}.append(layer)",
        ]
        return [f"for i in {range_text(self.scope, start, count)}:", *("    " + line for line in body)]

    def _kinds(self, node: Node, name: str) -> list[str]:
        """The layer of one iteration, chosen among those of several kinds."""
        made = {callee: f"layer = {self._constructor(node, name, callee)}" for callee in callees(node)}
        if len(made) == 1:
            return list(made.values())
        lines: list[str] = []
        for condition, callee in kind_conditions(self.scope, node):
            word = f"{'elif' if lines else 'if'} {condition}:" if condition else "else:"
            lines += [word, f"    {made[callee]}"]
        return lines

    def _weight(self, member: Member) -> str:
        node, dtype = member.node, member.node.tensor.dtype
        if not self.builds:
            raise fail("backbone-weight", f"the backbone itself cannot own the weight {node.name}")
        arguments = [f'name="{member.attribute}"', f"shape={self.scope.shape(node.tensor.shape)}"]
        if node.op == "const" or not node.tensor.is_floating:
            kept = "int32" if dtype == "int64" else dtype
            arguments += ['initializer="zeros"', f'dtype="{kept}"', "trainable=False"]
            if node.tensor.is_floating:
                arguments.append("autocast=False")
        else:
            arguments.append('initializer="glorot_uniform"')
        return f"self.{member.attribute} = self.add_weight({', '.join(arguments)})"

    def _constructor(self, node: Node, name: str, callee: str = "") -> str:
        """The construction of a layer.

        Args:
            node: what it stands for.
            name: of the layer.
            callee: the graph that a `call` or `loop` runs, the first one where nothing is said.
        """
        if node.op in CALLS:
            callee = callee or callee_of(node)
            head = self.heads[callee]
            column = 12 + 4 * (INDEX in name) + 4 * (len(callees(node)) > 1)
            arguments = [fitted(f"{a.name}=", self._argument(node, callee, a), column) for a in head.arguments]
            called = head.name
        else:
            called = constructor_name(node.op)
            arguments = self._layer_arguments(node)
        if not any(argument.startswith("dtype=") for argument in arguments):
            arguments.append(f'dtype="{SCANNED}"' if node.op == "scan" else f"dtype={self.dtype}")
        quoted = f'f"{name}"' if INDEX in name else f'"{name}"'
        return f"{called}({', '.join([*arguments, f'name={quoted}'])})"

    def _layer_arguments(self, node: Node) -> list[str]:
        defaults = constructor_defaults(node.op)
        given = constructor_attributes(node)
        order = [key for key in defaults if key in given and key not in ("name", "dtype")]
        kept = [k for k in order if k in _ALWAYS or not _is_default(given[k], defaults[k])]
        dtype = ["dtype"] if given.get("dtype") is not None else []
        return [f"{key}={self.scope.static(given[key])}" for key in kept + dtype]

    def _argument(self, node: Node, callee: str, argument: Field) -> str:
        """What a child class is given for one of its arguments."""
        if argument.source in self.analysis.plan.program.graphs[callee].parameters:
            return iteration_text(self.scope, node, argument.source)
        if argument.source.startswith(CONSTANT):
            path = self._constant_path(node, callee, argument.source.removeprefix(CONSTANT))
            return self.scope.field(CONSTANT + path)
        return self.scope.field(argument.source)

    def _constant_path(self, node: Node, callee: str, path: str) -> str:
        """A callee's constant as this graph calls it; an absolute path stays one."""
        if path.startswith("/"):
            return path
        start = _first(node.attrs.get("start", 0), self.analysis.plan.tiny_values)
        return join(child_path(node, start + first_iterations(node)[callee]), path)

    def _build(self, reference: str, node: Node) -> list[str]:
        if not self.builds:
            return []
        types = built_operands(self.analysis, self.graph, node)
        if not types and node.op not in CALLS:
            return []
        shapes = [self._shape(node, type_) for type_ in types]
        return [f"{reference}.build({', '.join(shapes)})"]

    def _shape(self, node: Node, type_: Tensor) -> str:
        first = next(iter(self.graph.inputs), None)
        if first is not None and same_type(first.type, type_):
            return shape_argument(self.graph)
        read = read_axes(self.analysis, node, type_.rank)
        return self.scope.shape(dim if axis in read else None for axis, dim in enumerate(type_.shape))


def shape_argument(graph: Graph) -> str:
    """The argument of `build`."""
    first = next(iter(graph.inputs), None)
    return "input_shape" if first is None else f"{input_names([first.name])[first.name]}_shape"


def range_text(scope: Scope, start, count) -> str:
    """The `range` of a loop."""
    if start == 0:
        return f"range({scope.static(count)})"
    if isinstance(start, Expr) or isinstance(count, Expr):
        stop = Expr(f"{start} + {count}").substitute({})
        stop = _without_cancelled(start, count, stop)
        return f"range({scope.static(start)}, {scope.static(stop)})"
    return f"range({start}, {start + count})"


def _without_cancelled(start, count, stop):
    """`n` for a loop that starts at 1 and runs n - 1 times."""
    names = sorted(Expr(str(count)).names)
    plain = [Expr(name) for name in names]
    return next((name for name in plain if same(name, stop)), stop)


def _first(start, env) -> int:
    return int(start.evaluate(env)) if isinstance(start, Expr) else int(start)


def _is_default(value, default) -> bool:
    return type(value) is type(default) and not isinstance(value, Expr) and value == default
