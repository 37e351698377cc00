"""Lower every torch op to `keras.ops`."""

import functools
from pathlib import Path

from hf2khc.diagnostics import ConversionError, Diagnostic
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.text import format_node
from hf2khc.passes.core.lower_attention import lower_attention
from hf2khc.passes.core.lower_bags import lower_bags
from hf2khc.passes.core.lower_complex import lower_complex
from hf2khc.passes.core.lower_convolution import lower_convolution
from hf2khc.passes.core.lower_experts import lower_experts
from hf2khc.passes.core.lower_grouped import lower_grouped
from hf2khc.passes.core.lower_indexing import lower_indexing
from hf2khc.passes.core.lower_normalization import lower_normalization
from hf2khc.passes.core.lower_pooling import lower_pooling
from hf2khc.passes.core.lower_recurrent import lower_recurrent
from hf2khc.passes.core.lower_resize import lower_resize
from hf2khc.passes.core.lower_sampling import lower_sampling
from hf2khc.passes.core.lower_scatter import lower_scatter
from hf2khc.passes.core.lower_splits import lower_splits
from hf2khc.rewrite import Rule, apply_rules, load_rules

STEPS = (
    # First: what it leaves of the torch level is for the others.
    lower_complex,
    # Before the parts of it that would do alone.
    lower_experts,
    lower_attention,
    lower_bags,
    lower_convolution,
    lower_pooling,
    lower_recurrent,
    lower_resize,
    lower_sampling,
    lower_grouped,
    lower_indexing,
    lower_scatter,
    lower_splits,
    lower_normalization,
)
FILES = ("arithmetic", "elementwise", "reductions", "shapes", "products")


def lower_aten(program: Program) -> Program:
    """Rewrite the torch level to the Keras level: first what takes a program to say, then the rules.

    Before:

        graph Linear(%x: f32[batch, seq, 8]) {
          param @weight: f32[16, 8]
          param @bias: f32[16]
          %y: f32[batch, seq, 16] = aten.linear(%x, @weight, @bias)
          return %y
        }

        entry Linear

    After:

        graph Linear(%x: f32[batch, seq, 8]) {
          param @weight: f32[16, 8]
          param @bias: f32[16]
          %y_transpose: f32[8, 16] = ops.transpose(@weight)
          %y_matmul: f32[batch, seq, 16] = ops.matmul(%x, %y_transpose)
          %y: f32[batch, seq, 16] = ops.add(%y_matmul, @bias)
          return %y
        }

        entry Linear

    Raises:
        ConversionError: every op that has no lowering, with its place in the model's source.
    """
    for step in STEPS:
        program = step(program)
    program = program.map(lambda graph: apply_rules(graph, core_rules()))
    left = {diagnostic: None for graph in program.callees_first() for diagnostic in _unsupported(graph)}
    if left:
        raise ConversionError(*left)
    return program


@functools.lru_cache(maxsize=1)
def core_rules() -> tuple[Rule, ...]:
    """The rules of this level, in order."""
    return tuple(rule for name in FILES for rule in load_rules(Path(__file__).with_name(f"{name}.rules")))


def _unsupported(graph: Graph) -> list[Diagnostic]:
    return [_residue(graph, node) for node in graph if node.level not in ("", "ops", "layers", "hub")]


def _residue(graph: Graph, node: Node) -> Diagnostic:
    known = {op for rule in core_rules() for op in rule.roots}
    why = "with these arguments has no lowering" if node.op in known else "has no lowering"
    place = f"({graph.cls})"
    if node.loc:
        place = f"{node.loc.file}:{node.loc.line}  ({node.loc.cls or graph.cls}, {node.loc.path or 'the model itself'})"
    hint = f"add a rule for {node.op} to passes/core/elementwise.rules or its neighbours"
    return Diagnostic("unsupported-op", f"{node.op} {why}", place, format_node(node), hint)
