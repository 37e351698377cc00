"""Lower recurrent layers."""

from collections.abc import Iterator

from hf2khc.ir.graph import Node, Program
from hf2khc.ir.types import Tensor
from hf2khc.passes.core.lowering import Builder, flag, lower

_ZEROS = ("aten.zeros", "aten.new_zeros", "aten.zeros_like", "ops.zeros", "ops.zeros_like")


def lower_recurrent(program: Program) -> Program:
    """Turn the outputs of `aten.lstm` into one `layers.LSTM` per layer, where it begins with zeros.

    torch adds two biases, Keras has the one that is their sum. Between layers there is dropout. The states at the end
    are not lowered.

    Before:

        graph Decoder(%x: f32[batch, seq, 4]) {
          param @w: f32[12, 4]
          param @u: f32[12, 3]
          param @b: f32[12]
          param @c: f32[12]
          %h: f32[1, batch, 3] = aten.zeros(size=(1, batch, 3))
          %lstm: (f32[batch, seq, 3], f32[1, batch, 3], f32[1, batch, 3]) = aten.lstm(%x, %h, %h, @w, @u, @b, @c, has_biases=true, num_layers=1, dropout=0.0, train=false, bidirectional=false, batch_first=true, lists=(2, 4))
          %y: f32[batch, seq, 3] = item(%lstm, index=0)
          return %y
        }

        entry Decoder

    After:

        graph Decoder(%x: f32[batch, seq, 4]) {
          param @w: f32[12, 4]
          param @u: f32[12, 3]
          param @b: f32[12]
          param @c: f32[12]
          %y_kernel: f32[4, 12] = ops.transpose(@w)
          %y_recurrent_kernel: f32[3, 12] = ops.transpose(@u)
          %y_bias: f32[12] = ops.add(@b, @c)
          %y: f32[batch, seq, 3] = layers.LSTM(%x, %y_kernel, %y_recurrent_kernel, %y_bias, units=3, return_sequences=true)
          return %y
        }

        entry Decoder
    """  # noqa: E501
    return lower(program, "lower_recurrent", {}, {"aten.lstm": _lstm})


def _lstm(builder: Builder, producer: Node) -> list[Node] | None:
    """The outputs of all times; torch and Keras have the gates in one order."""
    x, hidden, cell, *weights = producer.used
    begins = all(builder.graph[state].op in _ZEROS for state in (hidden, cell))
    plain, rate = not flag(producer, "bidirectional"), flag(producer, "dropout", 0.0)
    biased, count = bool(flag(producer, "has_biases")), int(str(producer.attrs["num_layers"]))
    if builder.root.attrs["index"] != 0 or not begins or not plain or len(weights) != count * (4 if biased else 2):
        return None
    swapped = not flag(producer, "batch_first")
    if swapped:
        x = builder.add("ops.transpose", x, axes=(1, 0, 2), title="by_row")
    *layers, last = _layers(builder, weights, count)
    dtype, (rows, times, _) = builder.tensor(x).dtype, builder.tensor(x).shape
    attrs = {"return_sequences": True} if biased else {"return_sequences": True, "use_bias": False}
    for units, *owned in layers:
        type_ = Tensor(dtype, (rows, times, units))
        x = builder.add("layers.LSTM", x, *owned, type=type_, title="layer", units=units, **attrs)
        if rate != 0.0:
            x = builder.add("layers.Dropout", x, type=type_, title="dropout", rate=rate)
    units, *owned = last
    if not swapped:
        return builder.finish("layers.LSTM", x, *owned, units=units, **attrs)
    type_ = Tensor(dtype, (rows, times, units))
    x = builder.add("layers.LSTM", x, *owned, type=type_, title="layer", units=units, **attrs)
    return builder.finish("ops.transpose", x, axes=(1, 0, 2))


def _layers(builder: Builder, weights: list[str], count: int) -> Iterator[tuple]:
    """The number of units of each layer, and its weights as Keras has them."""
    each = len(weights) // count
    for start in range(0, len(weights), each):
        kernel, recurrent, *biases = weights[start : start + each]
        units = builder.tensor(recurrent).shape[-1]
        owned = [
            builder.add("ops.transpose", kernel, title="kernel"),
            builder.add("ops.transpose", recurrent, title="recurrent_kernel"),
        ]
        yield units, *owned, *([builder.add("ops.add", *biases, title="bias")] if biases else [])
