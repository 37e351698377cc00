"""Recognise tables of positions and of queries that are bare weights as Embedding layers."""

import functools
import operator
import re
from dataclasses import replace

from hf2khc.ir.analysis import weight_values
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.types import Tensor

# Where a table goes when it is one: onto hidden states, beside them, or to every entry of the batch.
_ENDS = frozenset(("ops.add", "ops.broadcast_to", "ops.concatenate", "ops.get_item", "ops.slice", "ops.tile"))


def recognize_tables(program: Program) -> Program:
    """Turn a weight of rows that is added to hidden states into an Embedding that looks up every row.

    A model of images keeps its positions so. KerasHub holds them in an Embedding: a weight that a layer of one's own
    adds is reached neither by quantization nor by LoRA.

    Before:

        graph Embeddings(%x: f32[batch, 17, 8]) {
          param @position: f32[1, 17, 8]
          %y: f32[batch, 17, 8] = ops.add(%x, @position)
          return %y
        }

        entry Embeddings

    After:

        graph Embeddings(%x: f32[batch, 17, 8]) {
          param @position: f32[1, 17, 8]
          %position_ids: i64[17] = ops.arange(start=0, stop=17, dtype="int64")
          %position_table: f32[17, 8] = ops.reshape(@position, newshape=(17, 8))
          %position_rows: f32[17, 8] = layers.Embedding(%position_ids, %position_table, input_dim=17, output_dim=8)
          %y: f32[batch, 17, 8] = ops.add(%x, %position_rows)
          return %y
        }

        entry Embeddings
    """
    return program.map(_recognized)


def _recognized(graph: Graph) -> Graph:
    weights = weight_values(graph)
    for param in graph.of("param"):
        if _is_table(param.tensor) and _ends_well(graph, param, weights):
            graph = _looked_up(graph, param)
    return graph


def _is_table(tensor: Tensor) -> bool:
    """Whether rows and a width are more than 1: (rows, width), or such behind axes of 1; tables of places are none."""
    shape = tensor.shape
    sizes = [size for size in shape if size != 1]
    in_rows = len(sizes) >= 2 and shape[-1] != 1 and (len(sizes) == 2 or shape[0] == 1)
    return tensor.is_floating and 0 not in sizes and in_rows


def _ends_well(graph: Graph, node: Node, weights: frozenset[str]) -> bool:
    """Whether rows of the table reach hidden states on every way: whole, in part, or resized to other positions."""
    users = graph.users(node.name)
    ahead = (_ends_well(graph, user, weights) if user.name in weights else user.op in _ENDS for user in users)
    return bool(users) and all(ahead) and node.name not in graph.outputs


def _looked_up(graph: Graph, param: Node) -> Graph:
    base = re.split(r"[./]", param.name[1:])[-1]
    *leading, width = param.tensor.shape
    count = functools.reduce(operator.mul, leading)
    table = Tensor(param.tensor.dtype, (count, width))
    ids, flat, rows, shaped = (graph.fresh(f"{base}_{end}") for end in ("ids", "table", "rows", "shaped"))

    def made(name: str, op: str, operands: tuple, type_: Tensor, **attrs) -> Node:
        return Node(name, op, operands, attrs, type_, param.loc, param.origin | {"recognize_tables"})

    new = [made(ids, "ops.arange", (), Tensor("int64", (count,)), start=0, stop=count, dtype="int64")]
    if param.tensor.shape != table.shape:
        new.append(made(flat, "ops.reshape", (param.name,), table, newshape=table.shape))
    owner = new[-1].name if len(new) > 1 else param.name
    new.append(made(rows, "layers.Embedding", (ids, owner), table, input_dim=count, output_dim=width))
    if param.tensor.shape == table.shape:
        shaped = rows
    else:
        new.append(made(shaped, "ops.reshape", (rows,), param.tensor, newshape=param.tensor.shape))
    for user in graph.users(param.name):
        value = rows if _broadcasts(graph, user, param, table) else shaped
        new.append(replace(user, operands=tuple(value if o == param.name else o for o in user.operands)))
    return graph.rewired(new)


def _broadcasts(graph: Graph, user: Node, param: Node, table: Tensor) -> bool:
    """Whether the user adds the rows alone as it would the weight with its axes of 1."""
    others = [graph[o].tensor.rank for o in user.used if o != param.name]
    leading = param.tensor.shape[: param.tensor.rank - table.rank]
    return user.op == "ops.add" and all(d == 1 for d in leading) and max(others, default=0) >= param.tensor.rank
