"""Take images in Keras's layout."""

from dataclasses import replace

from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.types import Tensor

_TO_LAST = (0, 2, 3, 1)


def channels_last_inputs(program: Program) -> Program:
    """Give an input that is only wanted channels-last that layout, and move its transposes to where it is used.

    The input's attribute `permute` says how the model's own tensor is laid out: its axes in the new order.

    Before:

        graph Model(%pixels: f32[batch, 3, 8, 8]) {
          %x: f32[batch, 8, 8, 3] = ops.transpose(%pixels, axes=(0, 2, 3, 1))
          %y: f32[batch, 8, 8, 3] = ops.relu(%x)
          return %y
        }

        entry Model

    After:

        graph Model(%pixels: f32[batch, 8, 8, 3] {permute=(0, 2, 3, 1)}) {
          %y: f32[batch, 8, 8, 3] = ops.relu(%pixels)
          return %y
        }

        entry Model
    """
    graphs = dict(program.graphs)
    for node in program.main.inputs:
        if _is_image(node) and _wanted_last(graphs, program.main, node.name):
            _relaid(graphs, program.entry, node.name, {"permute": _TO_LAST})
    return program.with_graphs(graphs.values())


def _is_image(node: Node) -> bool:
    return node.tensor.rank == 4 and node.tensor.is_floating


def _wanted_last(graphs: dict[str, Graph], graph: Graph, name: str) -> bool:
    """Whether every use of a value, inside callees too, begins by putting channels last."""
    users = graph.users(name)
    return bool(users) and name not in graph.outputs and all(_puts_last(graphs, name, user) for user in users)


def _puts_last(graphs: dict[str, Graph], name: str, user: Node) -> bool:
    if user.op == "ops.transpose":
        return user.attrs.get("axes") == _TO_LAST
    if user.op != "call" or user.operands.count(name) != 1:
        return False
    callee = graphs[str(user.attrs["graph"])]
    return _wanted_last(graphs, callee, callee.inputs[user.operands.index(name)].name)


def _relaid(graphs: dict[str, Graph], graph_name: str, name: str, attrs: dict[str, object]) -> None:
    """Change the layout of an input of one graph and of the callees it is handed to."""
    graph = graphs[graph_name]
    node = graph[name]
    for user in graph.users(name):
        if user.op == "call":
            callee = graphs[str(user.attrs["graph"])]
            _relaid(graphs, callee.name, callee.inputs[user.operands.index(name)].name, {})
    type_ = Tensor(node.tensor.dtype, tuple(node.tensor.shape[axis] for axis in _TO_LAST))
    redirect = {user.name: name for user in graph.users(name) if user.op == "ops.transpose"}
    graphs[graph_name] = graph.rewired([replace(node, type=type_, attrs=attrs)], redirect)
