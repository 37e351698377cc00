"""Recognise convolutions with weights as Keras layers."""

from hf2khc.ir.analysis import added_bias, weight_values
from hf2khc.ir.graph import Graph, Node, Program

# By operation and rank; which axis of the kernel holds what is made, and which what is given.
_LAYERS = {"ops.conv": "layers.Conv{}D", "ops.conv_transpose": "layers.Conv{}DTranspose"}
_AXES = {"ops.conv": (-1, -2), "ops.conv_transpose": (-2, -1)}


def recognize_convolution(program: Program) -> Program:
    """Turn `ops.conv` and `ops.conv_transpose` with a weight as kernel, and the bias added, into `layers.Conv*`.

    Before:

        graph Patches(%x: f32[batch, 32, 32, 3]) {
          param @kernel: f32[16, 16, 3, 8]
          param @bias: f32[8]
          %y: f32[batch, 2, 2, 8] = ops.conv(%x, @kernel, strides=(16, 16), data_format="channels_last")
          %z: f32[batch, 2, 2, 8] = ops.add(%y, @bias)
          return %z
        }

        entry Patches

    After:

        graph Patches(%x: f32[batch, 32, 32, 3]) {
          param @kernel: f32[16, 16, 3, 8]
          param @bias: f32[8]
          %z: f32[batch, 2, 2, 8] = layers.Conv2D(%x, @kernel, @bias, filters=8, kernel_size=(16, 16), strides=(16, 16), data_format="channels_last")
          return %z
        }

        entry Patches
    """  # noqa: E501
    return program.map(_convolutions)


def _convolutions(graph: Graph) -> Graph:
    weights = weight_values(graph)
    new = []
    for conv in graph.of(*_LAYERS):
        x, kernel = conv.operands[:2]
        shape = graph[kernel].tensor.shape  # type: ignore[index]
        channels = graph[x].tensor.shape[-1]  # type: ignore[index]
        if kernel not in weights or x in weights or not all(isinstance(d, int) for d in (*shape, channels)):
            continue
        root, bias = added_bias(graph, conv, weights)
        made, given = (shape[axis] for axis in _AXES[conv.op])
        attrs = {"filters": made, "kernel_size": shape[:-2], **conv.attrs}
        if channels != given:
            attrs["groups"] = int(str(channels)) // int(str(given))
        operands = (x, kernel, bias) if bias else (x, kernel)
        attrs |= {} if bias else {"use_bias": False}
        origin = root.origin | conv.origin | {"recognize_convolution"}
        new.append(
            Node(root.name, _LAYERS[conv.op].format(len(shape) - 2), operands, attrs, root.type, conv.loc, origin)
        )
    return graph.rewired(new) if new else graph
