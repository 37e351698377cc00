"""A plan with a head as two: the backbone, and the task on top of it."""

from collections.abc import Iterable
from dataclasses import replace

from hf2khc.ir.analysis import constant_paths, mentioned_fields, weight_values
from hf2khc.ir.graph import LEAVES, Graph, Node, Program
from hf2khc.write.iteration import kind_lists
from hf2khc.write.plan import CONSTANT, Field, Plan


def backbone_plan(plan: Plan) -> Plan:
    """The plan of the backbone alone; `plan` itself where there is no head."""
    if plan.head is None:
        return plan
    graph = plan.program.main
    nodes = [node for node in graph if node.name in plan.head.backbone or _is_shared(node, weight_values(graph))]
    program = _with_entry(plan.program, graph.replaced(nodes, outputs=plan.head.outputs.values()).pruned(), ())
    return replace(plan, program=program, fields=_fields(plan, program), outputs=tuple(plan.head.outputs), head=None)


def task_program(plan: Plan) -> Program:
    """What the task computes from the backbone's outputs, which are inputs here, and from inputs of the model."""
    assert plan.head is not None
    graph = plan.program.main
    given = [Node(name, "input", type=graph[name].type) for name in plan.head.outputs.values()]
    taken = {node.name for node in given}
    body = graph.replaced([*given, *(node for node in graph if node.name not in taken)]).pruned()
    kept = [n for n in body if n.op != "input" or n.name in taken or body.uses(n.name)]
    return _with_entry(plan.program, body.replaced(kept), plan.program.outputs)


def task_fields(plan: Plan) -> tuple[Field, ...]:
    """The constructor arguments of the task: what it needs and the backbone does not have."""
    owned = backbone_plan(plan).by_source
    return tuple(field for field in _fields(plan, task_program(plan)) if field.source not in owned)


def _is_shared(node: Node, weights: frozenset[str]) -> bool:
    return node.op in LEAVES or node.name in weights


def _with_entry(program: Program, entry: Graph, outputs: Iterable[str]) -> Program:
    graphs = [*(graph for graph in program.graphs.values() if graph.name != entry.name), entry]
    return replace(program, outputs=tuple(outputs)).with_graphs(graphs)


def _fields(plan: Plan, program: Program) -> tuple[Field, ...]:
    sources = {*mentioned_fields(program), *(CONSTANT + path for path in constant_paths(program))}
    sources |= set(kind_lists(program, plan.fields))
    return tuple(field for field in plan.fields if field.source in sources)
