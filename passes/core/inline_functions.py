"""Inline modules that own no parameter."""

from hf2khc.ir.analysis import has_parameters
from hf2khc.ir.graph import Program
from hf2khc.ir.inline import inline_calls


def inline_functions(program: Program) -> Program:
    """Put activations, dropout, rotary tables and their like in place of their calls.

    A module without parameters is a function; as a class of its own it would hide an idiom from the rules.

    Before:

        graph GELU(%x: f32[batch, 8]) {
          %gelu: f32[batch, 8] = aten.gelu(%x)
          return %gelu
        }

        graph MLP(%x: f32[batch, 8]) {
          %act: f32[batch, 8] = call(%x, graph="GELU", path="act")
          return %act
        }

        entry MLP

    After:

        graph MLP(%x: f32[batch, 8]) {
          %gelu: f32[batch, 8] = aten.gelu(%x)
          return %gelu
        }

        entry MLP
    """
    owns = has_parameters(program)
    return inline_calls(program, lambda callee, call: not owns[callee.name])
