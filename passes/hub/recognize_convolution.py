"""Recognise convolutions with weights as Keras layers."""

from hf2khc.ir.analysis import added_bias, weight_values
from hf2khc.ir.graph import Graph, Node, Program

_LAYERS = {3: "layers.Conv1D", 4: "layers.Conv2D", 5: "layers.Conv3D"}


def recognize_convolution(program: Program) -> Program:
    """Turn `ops.conv` with a weight as its kernel, and the bias added to it, into `layers.Conv*`.

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
    for conv in graph.of("ops.conv"):
        x, kernel = conv.operands[:2]
        shape = graph[kernel].tensor.shape  # type: ignore[index]
        channels = graph[x].tensor.shape[-1]  # type: ignore[index]
        if kernel not in weights or x in weights or not all(isinstance(d, int) for d in (*shape, channels)):
            continue
        root, bias = added_bias(graph, conv, weights)
        attrs = {"filters": shape[-1], "kernel_size": shape[:-2], **conv.attrs}
        if channels != shape[-2]:
            attrs["groups"] = int(str(channels)) // int(str(shape[-2]))
        operands = (x, kernel, bias) if bias else (x, kernel)
        attrs |= {} if bias else {"use_bias": False}
        origin = root.origin | conv.origin | {"recognize_convolution"}
        new.append(Node(root.name, _LAYERS[conv.tensor.rank], operands, attrs, root.type, conv.loc, origin))
    return graph.rewired(new) if new else graph
