"""Order and name what a layer computes, as one would write it by hand."""

from collections.abc import Container

from hf2khc.ir.attention import PROJECTIONS, ROLES, attention, behind
from hf2khc.ir.graph import LEAVES, Graph, Node, Program, numbered
from hf2khc.ir.order import asked_order, ordered

CAUSAL, PADDING, MASK, POSITIONS, WINDOW = "causal_mask", "padding_mask", "mask", "positions", "window_mask"
_COMPARISONS = ("ops.less", "ops.less_equal", "ops.greater", "ops.greater_equal")


def name_values(program: Program) -> Program:
    """Put values where they are needed, operand by operand, and name those around an attention after their role.

    A trace has values in the order in which the model's code made them, masks long before the queries they are for, and
    many of them go by the name of a variable in a function that is gone. The entry keeps its order: encoders come
    before decoders there.

    Before:

        graph Attend(%x: f32[batch, seq, 2, 4]) {
          %t: i64[seq] = ops.arange(start=0, stop=seq, step=1, dtype="int64")
          %t_1: i64[1, 1, 1, seq] = ops.get_item(%t, key=("newaxis", "newaxis", "newaxis", ("slice", none, none, none)))
          %t_2: i64[1, 1, seq, 1] = ops.get_item(%t, key=("newaxis", "newaxis", ("slice", none, none, none), "newaxis"))
          %t_3: bool[1, 1, seq, seq] = ops.less_equal(%t_1, %t_2)
          %mul: f32[batch, seq, 2, 4] = ops.multiply(%x, x2=2.0)
          %y: f32[batch, seq, 2, 4] = ops.dot_product_attention(%mul, %x, %x, _, %t_3, scale=0.5)
          return %y
        }

        graph Model(%x: f32[batch, seq, 2, 4]) {
          %y: f32[batch, seq, 2, 4] = call(%x, graph="Attend", path="attend")
          return %y
        }

        entry Model

    After:

        graph Attend(%x: f32[batch, seq, 2, 4]) {
          %query: f32[batch, seq, 2, 4] = ops.multiply(%x, x2=2.0)
          %positions: i64[seq] = ops.arange(start=0, stop=seq, step=1, dtype="int64")
          %key_positions: i64[1, 1, 1, seq] = ops.get_item(%positions, key=("newaxis", "newaxis", "newaxis", ("slice", none, none, none)))
          %query_positions: i64[1, 1, seq, 1] = ops.get_item(%positions, key=("newaxis", "newaxis", ("slice", none, none, none), "newaxis"))
          %causal_mask: bool[1, 1, seq, seq] = ops.less_equal(%key_positions, %query_positions)
          %y: f32[batch, seq, 2, 4] = ops.dot_product_attention(%query, %x, %x, _, %causal_mask, scale=0.5)
          return %y
        }

        graph Model(%x: f32[batch, seq, 2, 4]) {
          %y: f32[batch, seq, 2, 4] = call(%x, graph="Attend", path="attend")
          return %y
        }

        entry Model
    """  # noqa: E501
    graphs = program.graphs.values()
    return program.with_graphs(
        graph if graph.name == program.entry else _named(ordered(graph, asked_order(graph))) for graph in graphs
    )


def _named(graph: Graph) -> Graph:
    titles = _titles(graph)
    names: dict[str, str] = {}
    taken = {node.name for node in graph if node.name not in titles}
    for node in graph:
        if node.name in titles:
            names[node.name] = numbered(titles[node.name], taken)
            taken.add(names[node.name])
    return graph.renamed(names)


def _titles(graph: Graph) -> dict[str, str]:
    titles: dict[str, str] = {}
    roles = (attention(graph) or ())[:3]
    sources = behind(graph, roles)
    for place, (operand, role) in enumerate(zip(roles, ROLES, strict=False)):
        others = frozenset().union(*sources[:place], *sources[place + 1 :])
        titles |= dict.fromkeys(_chain(graph, operand, others), role)
    return titles | _mask_titles(graph)


def _chain(graph: Graph, name: str, others: Container[str]) -> list[str]:
    """The value and what it is made from, back to its projection, but for what another role is made from, too."""
    found: list[str] = []
    while graph[name].op not in (*LEAVES, "loop", "item") and name not in others:
        found.append(name)
        operands = graph[name].operands
        if graph[name].op in PROJECTIONS or not operands or operands[0] is None:
            break
        name = operands[0]
    return found


def _mask_titles(graph: Graph) -> dict[str, str]:
    """Names for what is computed from positions and integer inputs, up to the masks of attentions."""
    wanted = {node.operands[4] for node in graph.of("ops.dot_product_attention") if len(node.operands) > 4}
    wanted |= {node.used[0] for node in graph.of("ops.where") if _masks_scores(graph, node)}
    for node in reversed(graph.nodes.values()):
        if node.name in wanted and not isinstance(node.type, tuple) and not node.tensor.is_floating:
            wanted.update(node.used)
    reads: dict[str, frozenset[str]] = {}
    titles = {}
    for node in graph:
        reads[node.name] = _reads(node, reads)
        if node.op in LEAVES or isinstance(node.type, tuple) or node.tensor.is_floating:
            continue
        if node.name in wanted or _is_positions(graph, node):
            titles[node.name] = _mask_title(node, reads[node.name])
    return titles


def _is_positions(graph: Graph, node: Node) -> bool:
    """A count, or the same with axes of size 1."""
    while node.op in ("ops.get_item", "ops.expand_dims") and node.tensor.dtype != "bool":
        node = graph[node.used[0]]
    return node.op == "ops.arange"


def _masks_scores(graph: Graph, node: Node) -> bool:
    users = graph.users(node.name)
    return len(node.used) > 1 and len(users) == 1 and users[0].op in ("ops.softmax", "ops.where")


def _reads(node: Node, reads: dict[str, frozenset[str]]) -> frozenset[str]:
    """What a value depends on: positions, inputs."""
    if node.op == "ops.arange":
        return frozenset({POSITIONS})
    if node.op in LEAVES:
        return frozenset({PADDING})
    return frozenset().union(*(reads[o] for o in node.used))


def _position_title(node: Node) -> str:
    """Positions that stand along the axis of queries, of keys, or along the only one."""
    if node.tensor.rank < 4:
        return POSITIONS
    return f"query_{POSITIONS}" if node.tensor.shape[-1] == 1 else f"key_{POSITIONS}"


def _mask_title(node: Node, reads: frozenset[str]) -> str:
    if reads == {POSITIONS}:
        if node.tensor.dtype != "bool":
            return _position_title(node)
        return WINDOW if node.op in _COMPARISONS and node.name.startswith("window") else CAUSAL
    return PADDING if reads == {PADDING} else MASK
