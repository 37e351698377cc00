"""What a layer computes once, of an encoder's output alone: its argument, and where `call` reads it."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from hf2khc.ir.graph import Graph, Node
from hf2khc.write.plan import KEPT, ONCE, Plan

CROSS = "cross_attention_cache"
BUILD = f"build_{CROSS}"


def keeps(plan: Plan, graph: str) -> bool:
    """Whether the class of a graph takes what is computed once."""
    return plan.decoding is not None and graph in plan.decoding.once


def call_graph(plan: Plan, graph: Graph) -> Graph:
    """The graph as `call` is printed: what is computed once is computed by a method, from inputs."""
    marks = graph.of(ONCE)
    if not marks or plan.decoding is None:
        return graph
    mark = replace(marks[0], operands=plan.decoding.once[graph.name])
    found = graph.replaced([mark if node.name == mark.name else node for node in graph]).pruned()
    names = {node.name: node.name.removesuffix(KEPT) for node in graph.users(mark.name)}
    return found.renamed({name: short for name, short in names.items() if short not in found})


def kept_lines(given: Sequence[str], targets: Sequence[str]) -> list[str]:
    """The statements for a `hub.computed_once` of inputs."""
    made = f"    {CROSS} = self.{BUILD}({', '.join(given)})"
    return [f"if {CROSS} is None:", made, f"{', '.join(targets)} = {CROSS}"]


def operands_of(node: Node, callee: Graph, taken: Collection[str]) -> tuple[str, ...]:
    """What a call or loop hands to those inputs of a graph that something is computed once from."""
    pairs = zip(callee.inputs, node.operands, strict=True)
    return tuple(operand for given, operand in pairs if operand and given.name in taken)
