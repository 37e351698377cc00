"""Recognise matrix products with weights as Dense layers."""

from hf2khc.ir.analysis import added_bias, weight_values
from hf2khc.ir.expr import same
from hf2khc.ir.graph import Graph, Node, Program


def recognize_linear(program: Program) -> Program:
    """Turn `x @ kernel + bias` into `layers.Dense`, and drop reshapes that only flatten around it.

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
    return program.map(lambda graph: _without_flattening(_dense(graph)))


def _dense(graph: Graph) -> Graph:
    weights = weight_values(graph)
    new = []
    for product in graph.of("ops.matmul"):
        x, kernel = product.used
        if x in weights or kernel not in weights or graph[kernel].tensor.rank != 2 or graph[x].tensor.rank < 2:
            continue
        root, bias = added_bias(graph, product, weights)
        operands = (x, kernel) if bias is None else (x, kernel, bias)
        attrs = {"units": product.tensor.shape[-1]} | ({} if bias else {"use_bias": False})
        origin = root.origin | product.origin | {"recognize_linear"}
        new.append(Node(root.name, "layers.Dense", operands, attrs, root.type, product.loc, origin))
    return graph.rewired(new) if new else graph


def _without_flattening(graph: Graph) -> Graph:
    """`reshape(dense(reshape(x)))` that merges the leading axes and splits them again is `dense(x)`."""
    new, redirect = [], {}
    for dense in graph.of("layers.Dense"):
        flat = graph[dense.used[0]]
        if flat.op != "ops.reshape" or flat.tensor.rank != 2:
            continue
        source = graph[flat.used[0]]
        backs = graph.users(dense.name)
        shape = (*source.tensor.shape[:-1], dense.tensor.shape[-1])
        if not same(source.tensor.shape[-1], flat.tensor.shape[-1]) or dense.name in graph.outputs:
            continue
        if not all(b.op == "ops.reshape" and _same_shape(b.tensor.shape, shape) for b in backs):
            continue
        type_ = backs[0].type
        new.append(
            Node(
                dense.name,
                dense.op,
                (source.name, *dense.operands[1:]),
                dense.attrs,
                type_,
                dense.loc,
                dense.origin.union(flat.origin, *(b.origin for b in backs)),
            )  # fmt: skip
        )
        redirect.update({back.name: dense.name for back in backs})
    return graph.rewired(new, redirect) if new else graph


def _same_shape(a: tuple, b: tuple) -> bool:
    return len(a) == len(b) and all(map(same, a, b))
