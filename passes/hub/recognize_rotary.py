"""Recognise rotary position embeddings, by the rules of `rotary.rules`."""

import importlib.resources

from hf2khc.ir.graph import Program
from hf2khc.rewrite.apply import apply_rules
from hf2khc.rewrite.load import load_rules

RULES = load_rules(importlib.resources.files(__package__) / "rotary.rules")


def recognize_rotary(program: Program) -> Program:
    """Turn rotations of queries and keys into `hub.rotary_embedding`.

    Before:

        graph Rotate(%x: f32[batch, seq, 2, 4], %cos: f32[1, seq, 4], %sin: f32[1, seq, 4]) {
          %c: f32[1, seq, 1, 4] = ops.expand_dims(%cos, axis=2)
          %s: f32[1, seq, 1, 4] = ops.expand_dims(%sin, axis=2)
          %first: f32[batch, seq, 2, 2] = ops.get_item(%x, key=("ellipsis", ("slice", none, 2, none)))
          %second: f32[batch, seq, 2, 2] = ops.get_item(%x, key=("ellipsis", ("slice", 2, none, none)))
          %minus: f32[batch, seq, 2, 2] = ops.negative(%second)
          %turned: f32[batch, seq, 2, 4] = ops.concatenate(%minus, %first, axis=3)
          %a: f32[batch, seq, 2, 4] = ops.multiply(%x, %c)
          %b: f32[batch, seq, 2, 4] = ops.multiply(%turned, %s)
          %y: f32[batch, seq, 2, 4] = ops.add(%a, %b)
          return %y
        }

        entry Rotate

    After:

        graph Rotate(%x: f32[batch, seq, 2, 4], %cos: f32[1, seq, 4], %sin: f32[1, seq, 4]) {
          %y: f32[batch, seq, 2, 4] = hub.rotary_embedding(%x, %cos, %sin)
          return %y
        }

        entry Rotate
    """
    return program.map(lambda graph: apply_rules(graph, RULES))
