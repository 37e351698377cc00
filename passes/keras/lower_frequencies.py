"""Spell frequencies of rotary embeddings out in the operations that are printed."""

import importlib.resources

from hf2khc.ir.graph import Program
from hf2khc.rewrite.apply import apply_rules
from hf2khc.rewrite.load import load_rules

RULES = load_rules(importlib.resources.files(__package__) / "lower_frequencies.rules")


def lower_frequencies(program: Program) -> Program:
    """Turn `hub.rotary_frequencies` into powers of the wavelength.

    Before:

        graph Angles(%positions: f32[1, seq, 1]) {
          %frequencies: f32[2] = hub.rotary_frequencies(max_wavelength=10000.0, size=4, scaling_factor=1.0)
          %angles: f32[1, seq, 2] = ops.multiply(%positions, %frequencies)
          return %angles
        }

        entry Angles

    After:

        graph Angles(%positions: f32[1, seq, 1]) {
          %frequencies_arange: f32[2] = ops.arange(start=0, stop=4, step=2, dtype="float32")
          %frequencies_divide: f32[2] = ops.divide(%frequencies_arange, x2=-4)
          %frequencies: f32[2] = ops.power(_, %frequencies_divide, x1=10000.0)
          %angles: f32[1, seq, 2] = ops.multiply(%positions, %frequencies)
          return %angles
        }

        entry Angles
    """
    return program.map(lambda graph: apply_rules(graph, RULES))
