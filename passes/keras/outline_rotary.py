"""Rotary embeddings become a layer of the package that makes its own tables."""

from dataclasses import replace

from hf2khc.ir.expr import Expr, names_of
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.outline import class_prefix, unused
from hf2khc.ir.text import format_graph
from hf2khc.ir.types import Tensor

_HEADS = Expr("heads")


def outline_rotary(program: Program) -> Program:
    """Put each rotation, with the tables of sines and cosines it reads, into a layer; equal ones are one layer.

    A layer that takes queries or keys alone and knows its frequencies is what KerasHub has, for any number of heads.

    Before:

        graph LlamaRotate(%x: f32[batch, seq, 2, 4], %angle: f32[1, seq, 4]) {
          %cos: f32[1, seq, 4] = ops.cos(%angle)
          %sin: f32[1, seq, 4] = ops.sin(%angle)
          %y: f32[batch, seq, 2, 4] = hub.rotary_embedding(%x, %cos, %sin)
          return %y
        }

        entry LlamaRotate

    After:

        graph LlamaRotateRotaryEmbedding(%inputs: f32[batch, seq, heads, 4], %angle: f32[1, seq, 4]) {
          %cos: f32[1, seq, 4] = ops.cos(%angle)
          %sin: f32[1, seq, 4] = ops.sin(%angle)
          %first: f32[batch, seq, heads, 2] = ops.get_item(%inputs, key=("ellipsis", ("slice", none, 2, none)))
          %second: f32[batch, seq, heads, 2] = ops.get_item(%inputs, key=("ellipsis", ("slice", 2, none, none)))
          %negative: f32[batch, seq, heads, 2] = ops.negative(%second)
          %rotated: f32[batch, seq, heads, 4] = ops.concatenate(%negative, %first, axis=-1)
          %cos_1: f32[1, seq, 1, 4] = ops.expand_dims(%cos, axis=2)
          %sin_1: f32[1, seq, 1, 4] = ops.expand_dims(%sin, axis=2)
          %kept: f32[batch, seq, heads, 4] = ops.multiply(%inputs, %cos_1)
          %turned: f32[batch, seq, heads, 4] = ops.multiply(%rotated, %sin_1)
          %outputs: f32[batch, seq, heads, 4] = ops.add(%kept, %turned)
          return %outputs
        }

        graph LlamaRotate(%x: f32[batch, seq, 2, 4], %angle: f32[1, seq, 4]) {
          %y: f32[batch, seq, 2, 4] = call(%x, %angle, graph="LlamaRotateRotaryEmbedding", path="")
          return %y
        }

        entry LlamaRotate
    """
    prefix = class_prefix(program)
    made: dict[str, Graph] = {}
    graphs = []
    for graph in program.graphs.values():
        calls = []
        for node in graph.of("hub.rotary_embedding"):
            layer, operands = _layer(graph, node)
            text = format_graph(layer)
            if text not in made:
                taken = {*program.graphs, *(other.name for other in made.values())}
                made[text] = layer.replaced(name=unused(f"{prefix}{layer.name}", taken), cls="")
            given = {name: Expr(name) for name in layer.parameters}
            attrs = {"graph": made[text].name, "path": "", **given}
            calls.append(
                replace(node, op="call", operands=operands, attrs=attrs, origin=node.origin | {"outline_rotary"})
            )
        graphs.append(graph.rewired(calls) if calls else graph)
    return program.with_graphs([*made.values(), *graphs]) if made else program


def _layer(graph: Graph, node: Node) -> tuple[Graph, tuple[str, ...]]:
    """The rotation and its tables as a graph, and what it is called on."""
    x, cos, sin = map(graph.__getitem__, node.used)
    copied, leaves = _tables(graph, (cos.name, sin.name))
    given = [leaf for leaf in leaves if leaf.op != "const"]
    taken = {n.name for n in (*copied, *leaves)}
    inputs = Node(unused("inputs", taken), "input", type=_any_heads(x.tensor), origin=x.origin)
    nodes = [inputs, *(Node(g.name, "input", type=g.type, origin=g.origin) for g in given)]
    nodes += [leaf for leaf in leaves if leaf.op == "const"] + copied
    nodes += _rotation(inputs, cos, sin, node, taken)
    used = names_of(tuple(v for n in nodes for v in n.attrs.values()))
    parameters = tuple(name for name in graph.parameters if name in used)
    return Graph("RotaryEmbedding", nodes, [nodes[-1].name], parameters), (x.name, *(g.name for g in given))


def _tables(graph: Graph, wanted: tuple[str, ...]) -> tuple[list[Node], list[Node]]:
    """The operations behind the tables, as far as they depend on no parameter, and what they read."""
    pure: set[str] = set()
    for node in graph:
        if node.op in ("const", "input") or (node.level == "ops" and all(o in pure for o in node.used)):
            pure.add(node.name)
    needed, leaves = {w for w in wanted if graph[w].level == "ops" and w in pure}, set(wanted)
    for node in reversed(graph.nodes.values()):
        if node.name in needed:
            leaves.discard(node.name)
            for operand in node.used:
                (needed if graph[operand].level == "ops" else leaves).add(operand)
    return [n for n in graph if n.name in needed], [n for n in graph if n.name in leaves]


def _any_heads(type_: Tensor) -> Tensor:
    return Tensor(type_.dtype, (*type_.shape[:2], _HEADS, type_.shape[3]))


def _rotation(inputs: Node, cos: Node, sin: Node, root: Node, taken: set[str]) -> list[Node]:
    """`x * cos + rotate_half(x) * sin`, under names that are free."""
    width = inputs.tensor.shape[3]
    assert isinstance(width, int)
    whole, half = inputs.tensor, Tensor(inputs.tensor.dtype, (*inputs.tensor.shape[:3], width // 2))
    made: list[Node] = []

    def add(name: str, op: str, operands: tuple[str, ...], type_: Tensor, **attrs: object) -> str:
        name = unused(name, {inputs.name, *taken, *(n.name for n in made)})
        made.append(Node(name, op, operands, attrs, type_, root.loc, root.origin))
        return name

    def table(node: Node) -> str:
        batch, seq, size = node.tensor.shape
        type_ = Tensor(node.tensor.dtype, (batch, seq, 1, size))
        return add(f"{node.name}_1", "ops.expand_dims", (node.name,), type_, axis=2)

    x, before, behind = inputs.name, ("slice", None, width // 2, None), ("slice", width // 2, None, None)
    first = add("first", "ops.get_item", (x,), half, key=("ellipsis", before))
    second = add("second", "ops.get_item", (x,), half, key=("ellipsis", behind))
    negative = add("negative", "ops.negative", (second,), half)
    rotated = add("rotated", "ops.concatenate", (negative, first), whole, axis=-1)
    cosine, sine = table(cos), table(sin)
    kept = add("kept", "ops.multiply", (x, cosine), whole)
    turned = add("turned", "ops.multiply", (rotated, sine), whole)
    add("outputs", "ops.add", (kept, turned), whole)
    return made
