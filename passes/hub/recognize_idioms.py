"""Recognise idioms that Keras has one function for, by the rules of `idioms.rules`."""

import importlib.resources

from hf2khc.ir.graph import Program
from hf2khc.rewrite.apply import apply_rules
from hf2khc.rewrite.load import load_rules

RULES = load_rules(importlib.resources.files(__package__) / "idioms.rules")


def recognize_idioms(program: Program) -> Program:
    """Apply the rules of `idioms.rules` to every graph.

    Before:

        graph Norm(%x: f32[batch, 8]) {
          param @weight: f32[8]
          %square: f32[batch, 8] = ops.power(%x, x2=2)
          %mean: f32[batch, 1] = ops.mean(%square, axis=(-1,), keepdims=true)
          %add: f32[batch, 1] = ops.add(%mean, x2=1e-06)
          %rsqrt: f32[batch, 1] = ops.rsqrt(%add)
          %scaled: f32[batch, 8] = ops.multiply(%x, %rsqrt)
          %y: f32[batch, 8] = ops.multiply(@weight, %scaled)
          return %y
        }

        entry Norm

    After:

        graph Norm(%x: f32[batch, 8]) {
          param @weight: f32[8]
          %y: f32[batch, 8] = ops.rms_normalization(%x, @weight, axis=-1, epsilon=1e-06)
          return %y
        }

        entry Norm
    """
    return program.map(lambda graph: apply_rules(graph, RULES))
