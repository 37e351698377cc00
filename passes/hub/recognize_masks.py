"""Recognise causal masks, by the rules of `masks.rules`."""

import importlib.resources

from hf2khc.ir.graph import Program
from hf2khc.rewrite.apply import apply_rules
from hf2khc.rewrite.load import load_rules

RULES = load_rules(importlib.resources.files(__package__) / "masks.rules")


def recognize_masks(program: Program) -> Program:
    """Turn comparisons of positions into `hub.causal_mask`, its window an attribute.

    Layers that differ by their window are then one graph with a parameter.

    Before:

        graph Mask(%q: i64[1, 1, seq, 1], %k: i64[1, 1, 1, seq]) {
          %y: bool[1, 1, seq, seq] = ops.less_equal(%k, %q)
          return %y
        }

        entry Mask

    After:

        graph Mask(%q: i64[1, 1, seq, 1], %k: i64[1, 1, 1, seq]) {
          %y: bool[1, 1, seq, seq] = hub.causal_mask(%q, %k, window=none)
          return %y
        }

        entry Mask
    """
    return program.map(lambda graph: apply_rules(graph, RULES))
