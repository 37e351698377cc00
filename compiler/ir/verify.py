"""The verifier: what must hold of a Program after every pass. All errors are collected and shown inside the IR text."""

import inspect
import re
from collections.abc import Callable, Iterator

from hf2khc.diagnostics import ConversionError, Diagnostic
from hf2khc.ir.evaluate import hub_function, layer_arguments
from hf2khc.ir.expr import Expr, names_of
from hf2khc.ir.graph import LEAVES, Graph, Node, Program
from hf2khc.ir.signatures import LIST_OPS, function, parameters, slot_names
from hf2khc.ir.text import format_graph
from hf2khc.ir.types import SHORT, Tensor, plain_symbols, tensors
from hf2khc.ir.verify_calls import check_call, check_item, check_loop, check_scan

# Dialects that may not occur any more at a level; `aten` stands for every namespace of torch.
_GONE = {None: (), "aten": (), "ops": ("aten",), "hub": ("aten",), "keras": ("aten", "hub")}
_STRUCTURAL = {"input": 0, "param": 0, "const": 0, "item": 1, "call": None, "loop": None, "scan": None}
_VALUE = re.compile(r"[A-Za-z_0-9.]+")
_LEAF = re.compile(r"@/?[A-Za-z_0-9.{}]+")


def verify(program: Program, level: str | None) -> None:
    """Check a program.

    Args:
        level: what the program has been lowered to (`aten`, `ops`, `hub`, `keras`): dialects below it are errors;
            `None` allows all.

    Raises:
        ConversionError: the program is malformed; one diagnostic per graph with errors, the errors inside its text.
    """
    if program.entry not in program.graphs:
        raise ConversionError(Diagnostic("invalid-ir", f"the entry graph {program.entry} does not exist"))
    diagnostics = []
    if program.outputs and len(program.outputs) != len(program.main.outputs):
        message = f"{len(program.outputs)} names for the {len(program.main.outputs)} outputs of {program.entry}"
        diagnostics.append(Diagnostic("invalid-ir", message))
    symbols = _symbols(program)
    for name, graph in program.graphs.items():
        errors: list[tuple[Node | None, str]] = []
        if name != graph.name:
            errors.append((None, f"the graph named {name} calls itself {graph.name}"))
        errors += _graph(graph, program, level, symbols)
        if errors:
            diagnostics.append(_diagnostic(graph, errors))
    if diagnostics:
        raise ConversionError(*diagnostics)


def _diagnostic(graph: Graph, errors: list[tuple[Node | None, str]]) -> Diagnostic:
    notes: dict[str, str] = {}
    for node, message in errors:
        if node:
            notes[node.name] = "\n".join(filter(None, [notes.get(node.name), message]))
    general = [message for node, message in errors if node is None]
    located = next((f"{node.loc.file}:{node.loc.line}" for node, _ in errors if node and node.loc), "")
    message = f"{len(errors)} error{'s' * (len(errors) > 1)} in graph {graph.name}"
    return Diagnostic("invalid-ir", message, located, "\n".join([*general, format_graph(graph, notes)]))


def _symbols(program: Program) -> frozenset[str]:
    """Names that some input's shape binds."""
    return frozenset().union(*(plain_symbols(node.type) for graph in program.graphs.values() for node in graph.inputs))


def _graph(graph: Graph, program: Program, level: str | None, symbols: frozenset[str]) -> list[tuple[Node | None, str]]:
    errors: list[tuple[Node | None, str]] = []
    for output in graph.outputs:
        if output not in graph:
            errors.append((None, f"the output {output} does not exist"))
    if not graph.outputs:
        errors.append((None, "there is no output"))
    bound = symbols | set(graph.parameters)
    for key, node in graph.nodes.items():
        found = [f"its key is {key}"] if key != node.name else []
        found += _node(node, graph, bound)
        if not found:  # an operand or type that is wrong would make these stumble
            found += _dialect(node, graph, program, level)
        errors += [(node, message) for message in found]
    return errors


def _node(node: Node, graph: Graph, bound: frozenset[str]) -> Iterator[str]:
    """What holds of every node."""
    yield from (f"there is no value {operand}" for operand in node.used if operand not in graph)
    leaf = node.op in ("param", "const")
    if not (_LEAF if leaf else _VALUE).fullmatch(node.name):
        yield f"{node.name} is not a name for a {node.op if leaf else 'value'}"
    if not node.origin:
        yield "it has no origin"
    yield from _types(node)
    yield from (
        f"{key} has the value {v!r}, which the IR does not know" for key, v in node.attrs.items() if not _known(v)
    )
    names = names_of(tuple(node.attrs.values())).union(
        *(t.symbols for t in tensors(node.type) if isinstance(t, Tensor))
    )
    yield from (f"nothing binds the name {n}" for n in sorted(names - bound) if not n.startswith("config."))


def _types(node: Node) -> Iterator[str]:
    if not isinstance(node.type, Tensor | tuple) or node.type == ():
        yield "it has no type"
        return
    for type_ in tensors(node.type):
        if not isinstance(type_, Tensor):
            yield f"{type_!r} is not a type"
        elif type_.dtype not in SHORT:
            yield f"{type_.dtype} is not a dtype"


def _known(value) -> bool:
    if isinstance(value, tuple):
        return all(map(_known, value))
    return value is None or isinstance(value, bool | int | float | str | Expr)


def _dialect(node: Node, graph: Graph, program: Program, level: str | None) -> Iterator[str]:
    if node.op in _STRUCTURAL:
        arity = _STRUCTURAL[node.op]
        if arity is not None and len(node.operands) != arity:
            yield f"{node.op} takes {arity} operand{'s' * (arity != 1)}, not {len(node.operands)}"
        elif node.op not in LEAVES:
            yield from _CHECKS[node.op](node, graph, program)
        return
    dialect = node.level if node.level in _CHECKS else "aten"
    if "." not in node.op:
        yield f"{node.op} is no op"
    elif dialect in _GONE[level]:
        yield f"{node.op} is left over at level {level}"
    elif dialect in _CHECKS:
        yield from _CHECKS[dialect](node, graph, program)


def _ops(node: Node, graph: Graph, program: Program) -> Iterator[str]:
    if not inspect.isfunction(function(node.op)):
        yield f"Keras has no {node.op}"
        return
    known = parameters(node.op)
    taken = {LIST_OPS[node.op]} if node.op in LIST_OPS else set()
    yield from _arguments(node, known, slot_names(node.op), taken)


def _hub(node: Node, graph: Graph, program: Program) -> Iterator[str]:
    definition = hub_function(node.op)
    if definition is None:
        yield f"there is no idiom {node.op}"
        return
    known = inspect.signature(definition).parameters
    yield from _arguments(node, known, tuple(known), set())


def _arguments(node: Node, known, slots: tuple[str, ...], taken: set[str]) -> Iterator[str]:
    """Operands fill `slots`, attributes name other parameters, and none that is required is left."""
    if not taken and len(node.operands) > len(slots):
        yield f"{node.op} takes at most {len(slots)} operands, not {len(node.operands)}"
    given = taken | {slot for slot, operand in zip(slots, node.operands, strict=False) if operand is not None}
    for key in node.attrs:
        if key not in known:
            yield f"{node.op} has no argument {key}"
        elif key in given:
            yield f"{key} is given by an operand already"
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for name, parameter in known.items():
        needed = parameter.default is inspect.Parameter.empty and parameter.kind not in variadic
        if needed and name not in given and name not in node.attrs:
            yield f"{node.op} needs {name}"


def _layers(node: Node, graph: Graph, program: Program) -> Iterator[str]:
    taken = layer_arguments(node.op)
    if taken is None:
        yield f"Keras has no {node.op}"
        return
    if not node.operands:
        yield f"{node.op} has no input"
    known = taken.constructor | taken.call
    yield from (f"{node.op} has no argument {key}" for key in node.attrs if key not in known)
    for name, parameter in parameters(node.op).items():
        if parameter.default is inspect.Parameter.empty and name not in node.attrs:
            variadic = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
            if not variadic and name != "self":
                yield f"{node.op} needs {name}"


_CHECKS: dict[str, Callable[[Node, Graph, Program], Iterator[str]]] = {
    "ops": _ops,
    "layers": _layers,
    "hub": _hub,
    "item": check_item,
    "call": check_call,
    "loop": check_loop,
    "scan": check_scan,
}
