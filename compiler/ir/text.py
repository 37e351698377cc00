"""The text form of a Program: `format_program` and `parse_program` are inverse."""

import functools
import importlib.resources
import json

import lark
import numpy as np

from hf2khc.diagnostics import fail
from hf2khc.ir.expr import Expr, simplify
from hf2khc.ir.graph import Graph, Loc, Node, Program
from hf2khc.ir.types import DTYPES, SHORT, Tensor, Type

# Constants up to this size are printed with their values.
_PRINTED = 64
_WORDS = {"true": True, "false": False, "none": None, "inf": float("inf"), "nan": float("nan")}


def format_program(program: Program) -> str:
    """The program as text, one value per line."""
    parts = [format_graph(graph) for graph in program.callees_first()]
    entry = f"entry {program.entry}"
    if program.outputs:
        entry += " returns " + ", ".join(map(json.dumps, program.outputs))
    constants = [_constant(path, array) for path, array in sorted(program.constants.items())]
    return "\n\n".join([*parts, "\n".join([entry, *constants])]) + "\n"


def format_graph(graph: Graph, notes: dict[str, str] | None = None) -> str:
    """One graph as text; `notes` are printed below the nodes they name."""
    parameters = f"<{', '.join(graph.parameters)}>" if graph.parameters else ""
    inputs = ", ".join(map(_input, graph.inputs))
    of = f" of {graph.cls}" if graph.cls != graph.name else ""
    lines = [f"graph {graph.name}{parameters}({inputs}){of} {{"]
    lines += [f"  {node.op} {node.name}: {node.type}" for node in graph.of("param", "const")]
    for node in graph:
        if node.op not in ("input", "param", "const"):
            lines.append("  " + format_node(node))
        if notes and node.name in notes:
            lines += [f"  ^ {line}" for line in notes[node.name].splitlines()]
    return "\n".join([*lines, f"  return {', '.join(map(_ref, graph.outputs))}", "}"])


def format_node(node: Node) -> str:
    """One node as a line of text."""
    operands = ["_" if operand is None else _ref(operand) for operand in node.operands]
    attrs = [f"{key}={format_value(value)}" for key, value in node.attrs.items()]
    loc = f"  # {node.loc}" if node.loc else ""
    return f"{_ref(node.name)}: {_type(node.type)} = {node.op}({', '.join(operands + attrs)}){loc}"


def format_value(value) -> str:
    """An attribute value as text."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(format_value, value))}{',' if len(value) == 1 else ''})"
    return str(value)


def parse_program(text: str) -> Program:
    """The program a text describes; constants printed without values are left out.

    Raises:
        ConversionError: a syntax error, with line and column.
    """
    try:
        return _Build().transform(_parser().parse(text))
    except lark.UnexpectedInput as error:
        place = f"line {error.line}, column {error.column}"
        raise fail("ir-syntax", "this is not IR", location=place, excerpt=error.get_context(text)) from None


@functools.lru_cache(maxsize=1)
def _parser() -> lark.Lark:
    source = importlib.resources.files("hf2khc.grammar").joinpath("ir.lark").read_text()
    return lark.Lark(source, start="program", parser="lalr", maybe_placeholders=False)


def _ref(name: str) -> str:
    return name if name.startswith("@") else f"%{name}"


def _input(node: Node) -> str:
    attrs = ", ".join(f"{key}={format_value(value)}" for key, value in node.attrs.items())
    return f"{_ref(node.name)}: {node.type}" + (f" {{{attrs}}}" if attrs else "")


def _type(type_: Type) -> str:
    if not isinstance(type_, tuple):
        return str(type_)
    return f"({type_[0]},)" if len(type_) == 1 else f"({', '.join(map(str, type_))})"


def _constant(path: str, array: np.ndarray) -> str:
    line = f"constant @{path}: {SHORT[str(array.dtype)]}[{', '.join(map(str, array.shape))}]"
    if array.size > _PRINTED:
        return line
    return f"{line} = {format_value(tuple(array.ravel().tolist()))}"


def _plain(value):
    """A value without text left to decide: `true` and its like are words, the rest of names are expressions."""
    if isinstance(value, Expr):
        return _WORDS.get(value.text, value) if value.text in _WORDS else simplify(value.text)
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


def _infix(symbol: str):
    return lambda self, items: Expr(f"{items[0]} {symbol} {items[1]}")


class _Build(lark.Transformer):
    """From the parse tree to the data; expressions are passed on as unevaluated `Expr`s."""

    add, sub, mul, floordiv, div, mod = map(_infix, ("+", "-", "*", "//", "/", "%"))
    pow = _infix("**")

    def program(self, items):
        graphs = [item for item in items if isinstance(item, Graph)]
        rest = items[len(graphs) :]
        outputs = next((item for item in rest if isinstance(item, tuple) and item[:1] != ("constant",)), ())
        constants = {item[1]: item[2] for item in rest if item[:1] == ("constant",) and item[2] is not None}
        return Program({graph.name: graph for graph in graphs}, str(rest[0]), outputs, constants)

    def graph(self, items):
        name, *rest = items
        tagged = {tag: [value for t, value in rest if t == tag] for tag in ("parameters", "of", "node", "return")}
        return Graph(
            str(name),
            tagged["node"],
            tagged["return"][0],
            parameters=next(iter(tagged["parameters"]), ()),
            cls=next(iter(tagged["of"]), ""),
        )

    def parameters(self, items):
        return "parameters", tuple(map(str, items))

    def of_class(self, items):
        return "of", str(items[0])

    def input(self, items):
        name, attrs = _name(items[0]), dict(value for _, value in items[2:])
        return "node", Node(name, "input", attrs=attrs, type=items[1], origin=frozenset({name}))

    def leaf(self, items):
        kind, name, type_ = items
        return "node", Node(str(name), str(kind), type=type_, origin=frozenset({str(name)}))

    def node(self, items):
        value, type_, op, *rest = items
        name, loc = _name(value), None
        if rest and isinstance(rest[-1], Loc):
            loc = rest.pop()
        operands = tuple(value for tag, value in rest if tag == "operand")
        attrs = dict(value for tag, value in rest if tag == "attribute")
        return "node", Node(name, str(op), operands, attrs, type_, loc, frozenset({name}))

    def loc(self, items):
        file, _, line = str(items[0])[2:].rpartition(":")
        return Loc(file, int(line))

    def return_(self, items):
        return "return", tuple(map(_name, items))

    def operand(self, items):
        return "operand", _name(items[0]) if items else None

    def attribute(self, items):
        return "attribute", (str(items[0]), _plain(items[1]))

    def type_list(self, items):
        return items[0] if len(items) == 1 else tuple(items)

    def one_type(self, items):
        return tuple(items)

    def type(self, items):
        dtype, *shape = items
        return Tensor(DTYPES[str(dtype)], tuple(map(_plain, shape)))

    def string(self, items):
        return json.loads(items[0])

    def tuple(self, items):
        return tuple(items)

    def string_list(self, items):
        return tuple(json.loads(item) for item in items)

    def constants(self, items):
        path, type_, *values = items
        array = None
        if values:
            array = np.asarray(_plain(values[0]), dtype=type_.dtype).reshape(type_.shape)
        return "constant", str(path)[1:], array

    def number(self, items):
        return Expr(str(items[0]))

    def name(self, items):
        return Expr(str(items[0]))

    def function(self, items):
        return Expr(f"{items[0]}({', '.join(map(str, items[1:]))})")

    def group(self, items):
        return Expr(f"({items[0]})")

    def neg(self, items):
        return Expr("-inf" if str(items[0]) == "inf" else f"-{items[0]}")


_WORDS["-inf"] = float("-inf")


def _name(token) -> str:
    return str(token).removeprefix("%")
