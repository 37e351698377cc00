"""Put layers of KerasHub where one computes exactly this, by the rules of `use_hub_layers.rules`."""

import importlib.resources

from hf2khc.ir.graph import Program
from hf2khc.rewrite.apply import apply_to_shared
from hf2khc.rewrite.load import load_rules

RULES = load_rules(importlib.resources.files(__package__) / "use_hub_layers.rules")


def use_hub_layers(program: Program) -> Program:
    """Turn a computation that is a layer of KerasHub's into that layer.

    Before:

        graph Rotate(%x: f32[batch, seq, 2, 4]) {
          %positions: i64[seq] = ops.arange(start=0, stop=seq, dtype="int64")
          %column: i64[1, seq, 1] = ops.get_item(%positions, key=("newaxis", ("slice", none, none, none), "newaxis"))
          %float: f32[1, seq, 1] = ops.cast(%column, dtype="float32")
          %f: f32[2] = hub.rotary_frequencies(max_wavelength=10000.0, size=4, scaling_factor=1.0)
          %half: f32[1, seq, 2] = ops.multiply(%float, %f)
          %angle: f32[1, seq, 4] = ops.concatenate(%half, %half, axis=-1)
          %cos: f32[1, seq, 4] = ops.cos(%angle)
          %sin: f32[1, seq, 4] = ops.sin(%angle)
          %y: f32[batch, seq, 2, 4] = hub.rotary_embedding(%x, %cos, %sin)
          return %y
        }

        entry Rotate

    After:

        graph Rotate(%x: f32[batch, seq, 2, 4]) {
          %y: f32[batch, seq, 2, 4] = layers.RotaryEmbedding(%x, max_wavelength=10000.0, scaling_factor=1.0)
          return %y
        }

        entry Rotate
    """
    return program.map(lambda graph: apply_to_shared(graph, RULES))
