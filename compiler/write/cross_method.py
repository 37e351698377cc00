"""The method of a layer that computes once what depends on an encoder's output alone."""

import copy
from collections.abc import Mapping
from dataclasses import replace

from hf2khc.ir.graph import Graph, Node, callee_of
from hf2khc.write.analysis import Analysis
from hf2khc.write.body import Body
from hf2khc.write.cross_cache import BUILD, keeps, operands_of
from hf2khc.write.members import Member
from hf2khc.write.names import input_names
from hf2khc.write.plan import ONCE, Plan
from hf2khc.write.render import Render
from hf2khc.write.scope import Scope
from hf2khc.write.source_text import docstring, indent, signature


def build_method(analysis: Analysis, graph: Graph, scope: Scope, owned: Mapping[str, Member]) -> list[str]:
    """The method of a layer that computes it; none where nothing is."""
    plan = analysis.plan
    if not keeps(plan, graph.name):
        return []
    assert plan.decoding is not None
    taken = plan.decoding.once[graph.name]
    marks = graph.of(ONCE)
    inner = [node for node in graph.of("call") if keeps(plan, callee_of(node))]
    given = marks[0].used if marks else _handed_on(plan, inner[0])
    part = graph.replaced(outputs=given).pruned()
    part = part.replaced([node for node in part if node.op != "input" or node.name in taken])
    own = copy.copy(scope)
    own.graph, own.sizes = part, {}
    found = with_graph(analysis, part)
    render = Render(found, part, own, owned, training=False, policy="self.compute_dtype")
    names = input_names(node.name for node in part.inputs)
    body = Body(found, part, render, names, taken=own.size_names())
    lines = body.lines()
    results = ", ".join(body.returned())
    results = results if marks else f"{owned[inner[0].name].reference}.{BUILD}({results})"
    return [
        signature(BUILD, list(names.values())),
        *indent([*docstring(_DOCS), *own.size_lines(), *lines, f"return {results}"]),
    ]


def _handed_on(plan: Plan, node: Node) -> tuple[str, ...]:
    assert plan.decoding is not None
    callee = callee_of(node)
    return operands_of(node, plan.program.graphs[callee], plan.decoding.once[callee])


def with_graph(analysis: Analysis, graph: Graph) -> Analysis:
    """The facts of a plan with another graph of the same name."""
    plan = analysis.plan
    if plan.program.graphs[graph.name] is graph:
        return analysis
    graphs = [graph if other.name == graph.name else other for other in plan.program.graphs.values()]
    return Analysis(replace(plan, program=plan.program.with_graphs(graphs)))


_DOCS = ["Compute once what does not depend on the tokens of the decoder."]
