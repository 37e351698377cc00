"""Keep the heads of attention on an axis of their own."""

import importlib.resources

from hf2khc.ir.graph import Program
from hf2khc.rewrite.apply import apply_rules, apply_to_shared
from hf2khc.rewrite.load import load_rules

SHARED = load_rules(importlib.resources.files(__package__) / "separate_shared.rules")
RULES = (*SHARED, *load_rules(importlib.resources.files(__package__) / "separate_heads.rules"))


def separate_heads(program: Program) -> Program:
    """Multiply queries, keys and values with the heads beside the batch and not within it.

    Such attention is recognised as any other, and what it caches has the batch first.

    Before:

        graph Attention(%q: f32[batch, 4, seq, 8], %k: f32[batch, 4, seq, 8]) {
          %qs: f32[4 * batch, seq, 8] = ops.reshape(%q, newshape=(4 * batch, seq, 8))
          %ks: f32[4 * batch, seq, 8] = ops.reshape(%k, newshape=(4 * batch, seq, 8))
          %kt: f32[4 * batch, 8, seq] = ops.transpose(%ks, axes=(0, 2, 1))
          %s: f32[4 * batch, seq, seq] = ops.matmul(%qs, %kt)
          %y: f32[batch, 4, seq, seq] = ops.reshape(%s, newshape=(batch, 4, seq, seq))
          return %y
        }

        entry Attention

    After:

        graph Attention(%q: f32[batch, 4, seq, 8], %k: f32[batch, 4, seq, 8]) {
          %kt_transpose: f32[batch, 4, 8, seq] = ops.transpose(%k, axes=(0, 1, 3, 2))
          %s_matmul: f32[batch, 4, seq, seq] = ops.matmul(%q, %kt_transpose)
          return %s_matmul
        }

        entry Attention
    """
    return program.map(lambda graph: apply_rules(apply_to_shared(graph, SHARED), RULES))
