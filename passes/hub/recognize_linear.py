"""Recognise products with weights as Dense and EinsumDense layers."""

import string
from dataclasses import replace
from typing import Any

from hf2khc.ir.analysis import added_bias, addition, weight_values
from hf2khc.ir.expr import same
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.types import Tensor


def recognize_linear(program: Program) -> Program:
    """Turn `x @ kernel + bias` into `layers.Dense`, and drop reshapes that only flatten around it.

    A product with the kernels of all experts, `ops.einsum` or one product for each of them, is a `layers.EinsumDense`.
    A weight on the left computes with the channels first: it is a kernel between transposes, which other passes sink.

    Before:

        graph Linear(%x: f32[batch, seq, 8]) {
          param @weight: f32[16, 8]
          param @bias: f32[16]
          %kernel: f32[8, 16] = ops.transpose(@weight)
          %y: f32[batch, seq, 16] = ops.matmul(%x, %kernel)
          %z: f32[batch, seq, 16] = ops.add(%y, @bias)
          return %z
        }

        entry Linear

    After:

        graph Linear(%x: f32[batch, seq, 8]) {
          param @weight: f32[16, 8]
          param @bias: f32[16]
          %kernel: f32[8, 16] = ops.transpose(@weight)
          %z: f32[batch, seq, 16] = layers.Dense(%x, %kernel, @bias, units=16)
          return %z
        }

        entry Linear
    """
    return program.map(lambda graph: _einsum_dense(without_flattening(_dense(graph))))


def _dense(graph: Graph) -> Graph:
    weights = weight_values(graph)
    new = []
    for product in graph.of("ops.matmul"):
        x, kernel = product.used
        if _is_on_the_left(graph, product, weights):
            new += _from_the_left(graph, product, weights)
        if kernel not in weights or graph[kernel].tensor.rank != 2:
            continue
        if graph[x].tensor.rank == 1:
            new += _of_a_vector(graph, product, weights)
        if x in weights or graph[x].tensor.rank < 2:
            continue
        root, bias = added_bias(graph, product, weights)
        origin = root.origin | product.origin | {"recognize_linear"}
        new.append(Node(root.name, *_layer(x, kernel, bias, root.tensor), product.loc, origin))
    return graph.rewired(new) if new else graph


def _layer(x: str, kernel: str, bias: str | None, type_: Tensor) -> tuple[str, tuple[str, ...], dict[str, Any], Tensor]:
    """What a `layers.Dense` is as a node: its op, operands, attributes and type."""
    operands = (x, kernel, bias) if bias else (x, kernel)
    return "layers.Dense", operands, {"units": type_.shape[-1]} | ({} if bias else {"use_bias": False}), type_


def _of_a_vector(graph: Graph, product: Node, weights: frozenset[str]) -> list[Node]:
    """`x @ w + b` of a vector, such as the embedding of one token, as that of a row: a layer takes no less."""
    x, kernel = product.used
    root, bias = added_bias(graph, product, weights)
    origin = root.origin | product.origin | {"recognize_linear"}
    names = [graph.fresh(f"{root.name}_{part}") for part in ("row", "dense")]
    row, made = (Tensor(root.tensor.dtype, (1, *graph[name].tensor.shape)) for name in (x, root.name))
    return [
        Node(names[0], "ops.expand_dims", (x,), {"axis": 0}, row, product.loc, origin),
        Node(names[1], *_layer(names[0], kernel, bias, made), product.loc, origin),
        Node(root.name, "ops.squeeze", (names[1],), {"axis": (0,)}, root.type, product.loc, origin),
    ]


def _is_on_the_left(graph: Graph, product: Node, weights: frozenset[str]) -> bool:
    weight, x = product.used
    is_kernel = weight in weights and x not in weights and graph[weight].tensor.rank == 2
    return is_kernel and graph[x].tensor.rank > 2


def _from_the_left(graph: Graph, product: Node, weights: frozenset[str]) -> list[Node]:
    """`w @ x + b` as the transpose of `transpose(x) @ transpose(w) + b`, the bias a column there."""
    weight, x = product.used
    root, bias = _column(graph, product, weights)
    rank = product.tensor.rank
    swap = {"axes": (*range(rank - 2), rank - 1, rank - 2)}
    units, origin = graph[weight].tensor.shape[0], root.origin | product.origin | {"recognize_linear"}

    def made(name: str, op: str, operands: tuple[str, ...], attrs: dict[str, Any], shape: tuple) -> Node:
        return Node(name, op, operands, attrs, Tensor(product.tensor.dtype, shape), product.loc, origin)

    names = [graph.fresh(f"{root.name}_{part}") for part in ("rows", "kernel", "dense")]
    *batch, width, length = graph[x].tensor.shape
    rows = Tensor(product.tensor.dtype, (*batch, length, units))
    return [
        made(names[0], "ops.transpose", (x,), swap, (*batch, length, width)),
        made(names[1], "ops.transpose", (weight,), {}, (width, units)),
        Node(names[2], *_layer(names[0], names[1], bias, rows), product.loc, origin),
        made(root.name, "ops.transpose", (names[2],), swap, product.tensor.shape),
    ]


def _column(graph: Graph, product: Node, weights: frozenset[str]) -> tuple[Node, str | None]:
    """The addition of a bias to every column of `product`, and the bias; `product` itself where there is none."""
    added = addition(graph, product)
    column = graph[added[1]] if added else product
    if not added or column.name not in weights or column.op != "ops.expand_dims" or column.attrs["axis"] not in (1, -1):
        return product, None
    bias = graph[column.used[0]]
    return (added[0], bias.name) if bias.tensor.shape == product.tensor.shape[-2:-1] else (product, None)


def _einsum_dense(graph: Graph) -> Graph:
    weights = weight_values(graph)
    new = []
    for product in graph.of("ops.einsum", "ops.matmul"):
        if [name in weights for name in product.used] not in ([False, True], [True, False]):
            continue
        place = 0 if product.used[0] in weights else 1
        x, (kernel, given, letters, made) = product.used[1 - place], _TERMS[product.op](graph, product, place)
        if not _is_layer(given, letters, made):
            continue
        # Of the last axes those that the kernel makes; an axis of the input alone has no size of its own.
        own = next((i for i, letter in enumerate(reversed(made)) if letter not in letters), len(made))
        root, bias = added_bias(graph, product, weights, own)
        sizes = zip(made[1:], product.tensor.shape[1:], strict=True)
        attrs = {
            "equation": f"{given},{letters}->{made}",
            "output_shape": tuple(size if letter in letters else None for letter, size in sizes),
            **({"bias_axes": made[-graph[bias].tensor.rank :]} if bias else {}),
        }
        origin = root.origin | product.origin | {"recognize_linear"}
        operands = (x, kernel, bias) if bias else (x, kernel)
        new.append(Node(root.name, "layers.EinsumDense", operands, attrs, root.type, product.loc, origin))
    return graph.rewired(new) if new else graph


# The kernel of a product, and the letters of the other operand, of the kernel and of the result.
_Terms = tuple[str, str, str, str]
_NONE = ("", "", "", "")


def _subscripts(graph: Graph, product: Node, place: int) -> _Terms:
    terms, _, made = str(product.attrs["subscripts"]).replace(" ", "").partition("->")
    pair = terms.split(",")
    return (product.used[place], pair[1 - place], pair[place], made) if len(pair) == 2 else _NONE


def _batched(graph: Graph, product: Node, place: int) -> _Terms:
    """Those of a product with one kernel for each entry of axes in front, which may have a new axis among those."""
    value, x = graph[product.used[place]], graph[product.used[1 - place]].tensor
    expanded = value.op == "ops.expand_dims" and isinstance(value.attrs["axis"], int)
    kernel = graph[value.used[0]] if expanded else value
    new = value.attrs["axis"] % value.tensor.rank if expanded else None  # type: ignore[operator]
    before = x.rank - value.tensor.rank
    own = [before + axis for axis in range(value.tensor.rank - 2) if axis != new]
    *front, _, _ = sizes = kernel.tensor.shape if kernel.tensor.rank > 2 else (0, 0)
    if (
        before < 0
        or not front
        or front != [x.shape[axis] for axis in own]
        or not all(isinstance(n, int) for n in sizes)
    ):
        return _NONE
    leading = string.ascii_lowercase[: x.rank - 2]
    row, summed, column = list(string.ascii_lowercase[x.rank - 2 :][:3])
    sides = (row + summed, summed + column)
    letters = "".join(leading[axis] for axis in own)
    return kernel.name, leading + sides[1 - place], letters + sides[place], leading + row + column


_TERMS = {"ops.einsum": _subscripts, "ops.matmul": _batched}


def _is_layer(given: str, kernel: str, made: str) -> bool:
    """Whether a product is one of EinsumDense: its first axis stays, and it sums over the axes of the kernel alone."""
    every = given + kernel + made
    return (
        every.isalpha()
        and all(len(set(term)) == len(term) for term in (given, kernel, made))
        and given[0] == made[:1]
        and set(given) <= set(kernel + made)
        and set(kernel) <= set(given + made)
        and set(made) <= set(given + kernel)
    )


def without_flattening(graph: Graph) -> Graph:
    """`reshape(dense(reshape(x)))` that only merges, splits or puts in leading axes in between is `dense(x)`.

    Where the second reshape takes the last axis apart as well, it stays.
    """
    new, redirect = [], {}
    for dense in graph.of("layers.Dense"):
        flat = graph[dense.used[0]]
        if flat.op != "ops.reshape" or dense.name in graph.outputs:
            continue
        source = graph[flat.used[0]]
        backs = graph.users(dense.name)
        lead = source.tensor.shape[:-1]
        if not lead or not same(source.tensor.shape[-1], flat.tensor.shape[-1]):
            continue
        if not all(b.op == "ops.reshape" and _same_shape(b.tensor.shape[: len(lead)], lead) for b in backs):
            continue
        type_ = Tensor(dense.tensor.dtype, (*lead, dense.tensor.shape[-1]))
        gone = [back for back in backs if back.tensor.rank == type_.rank]
        origin = dense.origin.union(flat.origin, *(back.origin for back in gone))
        new.append(replace(dense, operands=(source.name, *dense.operands[1:]), type=type_, origin=origin))
        redirect.update({back.name: dense.name for back in gone})
    return graph.rewired(new, redirect) if new else graph


def _same_shape(a: tuple, b: tuple) -> bool:
    return len(a) == len(b) and all(map(same, a, b))
