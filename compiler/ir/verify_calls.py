"""What the verifier asks of calls: the callee exists, and takes and returns what the node says."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from hf2khc.ir.expr import Expr
from hf2khc.ir.graph import Graph, Node, Program, callee_of, callees, scan_parts, substitute_node
from hf2khc.ir.types import Tensor, Type, same_type, tensors


def check_item(node: Node, graph: Graph, program: Program) -> Iterator[str]:
    """Errors of an `item`."""
    source = graph[node.used[0]].type if node.used else ()
    index = node.attrs.get("index")
    if not isinstance(source, tuple):
        yield f"{node.operands[0]} has one result only"
    elif not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(source):
        yield f"index {index} of {len(source)} results"
    elif not same_type(source[index], node.type):
        yield f"it is {source[index]}"


def check_call(node: Node, graph: Graph, program: Program) -> Iterator[str]:
    """Errors of a `call`: arity, graph parameters, types of operands and results with the symbols bound."""
    yield from _instantiation(node, program, ("graph", "path"))
    callee = program.graphs.get(str(node.attrs.get("graph")))
    if callee is None or not _fits(callee, node, graph.nodes):
        return
    mapping = _mapping(callee, node, graph.nodes)
    yield from _operand_types(callee, node, graph.nodes, mapping)
    results = _results(callee, mapping)
    if not same_type(results if len(results) > 1 else results[0], node.type):
        yield f"{callee.name} returns {_text(results)}"


def check_loop(node: Node, graph: Graph, program: Program) -> Iterator[str]:
    """Errors of a `loop`: those of a call, and that every iteration carries on what it takes."""
    yield from _instantiation(node, program, ("graph", "path", "start", "count", "carry"))
    for name in callees(node) if "graph" in node.attrs else ():
        if name in program.graphs:
            yield from _check_iteration(program.graphs[name], node, graph)
    yield from _check_counts(node)


def check_scan(node: Node, graph: Graph, program: Program) -> Iterator[str]:
    """Errors of a `scan`: those of a call on one entry of each sequence, and what it carries from entry to entry."""
    yield from _instantiation(node, program, ("graph", "path", "carry", "over"))
    carry, over = node.attrs.get("carry"), node.attrs.get("over")
    callee = program.graphs.get(str(node.attrs.get("graph")))
    if not isinstance(carry, int) or not isinstance(over, int) or callee is None:
        return
    if len(callee.outputs) != carry or not 0 < over <= len(node.operands) - carry:
        yield f"{callee.name} carries {len(callee.outputs)} values, not {carry}, over {over} sequences"
        return
    sequences = [graph[o].tensor for o in scan_parts(node, node.operands)[1] if o is not None]
    lengths = {str(t.shape[0]) if t.shape else "" for t in (*sequences, *tensors(node.type))}
    if len(sequences) < over or len(lengths) > 1 or "" in lengths:
        yield f"its sequences and results are not of one length: {', '.join(sorted(lengths))}"
        return
    call, entries = _on_one_entry(node, graph)
    if _fits(callee, call, entries):
        mapping = _mapping(callee, call, entries)
        yield from _operand_types(callee, call, entries, mapping)
        yield from _carried_types(callee, call, mapping)


def _on_one_entry(node: Node, graph: Graph) -> tuple[Node, dict[str, Node]]:
    """A `scan` as a call on one entry of each sequence, and the operands of that."""
    sequences = scan_parts(node, range(len(node.operands)))[1]
    entries = {}
    for position, operand in enumerate(node.operands):
        if operand is not None:
            type_ = graph[operand].tensor
            entry = Tensor(type_.dtype, type_.shape[1:]) if position in sequences else type_
            entries[str(position)] = replace(graph[operand], type=entry)
    results = tuple(Tensor(t.dtype, t.shape[1:]) for t in tensors(node.type))
    operands = tuple(o and str(position) for position, o in enumerate(node.operands))
    return replace(node, operands=operands, type=results if len(results) > 1 else results[0]), entries


def _check_counts(node: Node) -> Iterator[str]:
    count = node.attrs.get("count")
    for name, value in node.attrs.items():
        if isinstance(value, tuple) and isinstance(count, int) and len(value) != count:
            yield f"{name} has {len(value)} values for {count} iterations"


def _check_iteration(callee: Graph, node: Node, graph: Graph) -> Iterator[str]:
    """Errors of the iterations that run one graph."""
    carry = node.attrs.get("carry")
    if not isinstance(carry, int) or not _fits(callee, node, graph.nodes):
        return
    if len(callee.outputs) != carry or len(callee.inputs) < carry:
        yield f"{callee.name} carries {len(callee.outputs)} of {len(callee.inputs)} values, not {carry}"
        return
    # Parameters that change from one iteration to the next may not decide a type: the first stands for all.
    mapping = {name: _of_graph(callee, node, value) for name, value in _mapping(callee, node, graph.nodes).items()}
    yield from _operand_types(callee, node, graph.nodes, mapping)
    yield from _carried_types(callee, node, mapping)


def _of_graph(callee: Graph, node: Node, value):
    """What a graph parameter is in the first iteration that runs `callee`."""
    if not isinstance(value, tuple) or not value:
        return value
    first = next(i for i in range(len(value)) if callee_of(node, i) == callee.name)
    return value[first]


def _carried_types(callee: Graph, node: Node, mapping: dict[str, object]) -> Iterator[str]:
    results = _results(callee, mapping)
    for argument, result in zip(callee.inputs, results, strict=False):
        if not same_type(substitute_node(argument, mapping).type, result):
            yield f"{callee.name} takes {argument.name} as {argument.type} and carries {result} on"
    if not same_type(results if len(results) > 1 else results[0], node.type):
        yield f"{callee.name} returns {_text(results)}"


def _instantiation(node: Node, program: Program, needed: tuple[str, ...]) -> Iterator[str]:
    """Graph, path and graph parameters of a call, loop or scan."""
    missing = [key for key in needed if key not in node.attrs]
    yield from (f"{node.op} needs {key}" for key in missing)
    if "graph" in missing:
        return
    known: set[str] = set()
    for name in callees(node):
        callee = program.graphs.get(name)
        if callee is None:
            yield f"there is no graph {name}"
            return
        known |= set(callee.parameters)
        yield from (f"{name} needs its parameter {p}" for p in callee.parameters if p not in node.attrs)
        if len(node.operands) != len(callee.inputs):
            yield f"{name} takes {len(callee.inputs)} operands, not {len(node.operands)}"
    # `name` is the attribute the layer goes by in the package.
    extra = node.attrs.keys() - {*needed, "name", *known}
    yield from (f"{' or '.join(callees(node))} has no parameter {key}" for key in sorted(extra))


def _fits(callee: Graph, node: Node, graph: Mapping[str, Node]) -> bool:
    """Whether the types of operands and results can be compared at all."""
    pairs = [(i.type, graph[o].type) for i, o in zip(callee.inputs, node.operands, strict=False) if o is not None]
    results = [callee[output].type for output in callee.outputs if output in callee]
    comparable = all(isinstance(t, Tensor) for t in (*sum(pairs, ()), *results))
    return comparable and len(node.operands) == len(callee.inputs) and 0 < len(results) == len(callee.outputs)


def _bindings(callee: Graph, node: Node, graph: Mapping[str, Node]) -> dict[str, object]:
    """The callee's symbols as dimensions of the caller."""
    mapping: dict[str, object] = {}
    for argument, operand in zip(callee.inputs, node.operands, strict=True):
        if operand is None or argument.tensor.rank != graph[operand].tensor.rank:
            continue
        for dim, size in zip(argument.tensor.shape, graph[operand].tensor.shape, strict=True):
            if isinstance(dim, Expr) and dim.names == {dim.text}:
                mapping.setdefault(dim.text, size)
    return mapping


def _mapping(callee: Graph, node: Node, graph: Mapping[str, Node]) -> dict[str, object]:
    """What the callee's symbols and parameters are in the caller."""
    given = {name: node.attrs[name] for name in callee.parameters if name in node.attrs}
    return {**_bindings(callee, node, graph), **given}


def _operand_types(callee: Graph, node: Node, graph: Mapping[str, Node], mapping: dict[str, object]) -> Iterator[str]:
    for argument, operand in zip(callee.inputs, node.operands, strict=True):
        if operand is None:
            continue
        expected, found = substitute_node(argument, mapping).type, graph[operand].type
        if not same_type(expected, found):
            yield f"{callee.name} takes {argument.name} as {_text((expected,))}, not {found}"


def _results(callee: Graph, mapping: dict[str, object]) -> tuple[Tensor, ...]:
    return tuple(substitute_node(callee[output], mapping).tensor for output in callee.outputs)


def _text(types: tuple[Type, ...]) -> str:
    return ", ".join(map(str, types))
