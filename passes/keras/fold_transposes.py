"""Write transposes around products of heads as one einsum, by the rules of `fold_transposes.rules`."""

import importlib.resources

from hf2khc.ir.graph import Program
from hf2khc.rewrite.apply import apply_rules
from hf2khc.rewrite.load import load_rules

RULES = load_rules(importlib.resources.files(__package__) / "fold_transposes.rules")


def fold_transposes(program: Program) -> Program:
    """Turn products of transposed heads into `ops.einsum`.

    Before:

        graph Scores(%q: f32[batch, seq, 2, 4], %k: f32[batch, seq, 2, 4]) {
          %a: f32[batch, 2, seq, 4] = ops.transpose(%q, axes=(0, 2, 1, 3))
          %b: f32[batch, 2, 4, seq] = ops.transpose(%k, axes=(0, 2, 3, 1))
          %y: f32[batch, 2, seq, seq] = ops.matmul(%a, %b)
          return %y
        }

        entry Scores

    After:

        graph Scores(%q: f32[batch, seq, 2, 4], %k: f32[batch, seq, 2, 4]) {
          %y: f32[batch, 2, seq, seq] = ops.einsum(%q, %k, subscripts="bqhd,bkhd->bhqk")
          return %y
        }

        entry Scores
    """
    return program.map(lambda graph: apply_rules(graph, RULES))
