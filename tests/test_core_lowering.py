"""Every lowering of a torch op against torch itself, in float64 on random values."""

import inspect
import os
import textwrap

os.environ.setdefault("KERAS_BACKEND", "torch")

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import transformers.integrations.moe  # noqa: F401  (registers its operators with torch)

from hf2khc.capture.aten import aten_evaluator
from hf2khc.diagnostics import ConversionError
from hf2khc.ir.evaluate import keras_evaluators
from hf2khc.ir.expr import Expr
from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.ir.text import format_program, parse_program
from hf2khc.ir.types import Tensor, concrete
from hf2khc.ir.validate import validate
from hf2khc.ir.verify import verify
from hf2khc.passes.core import lower_aten as lower_aten_module
from hf2khc.passes.core.lower_aten import core_rules, lower_aten
from hf2khc.rewrite import apply_rules, parse_rules

EVALUATORS = {**keras_evaluators(), "aten": aten_evaluator(), "transformers": aten_evaluator()}
ENV = {"batch": 5, "seq": 7}
NAMES = {5: Expr("batch"), 7: Expr("seq")}


def cases() -> list[tuple[str, str]]:
    """(inputs, call) of every case in core_lowering_cases.txt."""
    found, inputs = [], ""
    for line in Path(__file__).with_name("core_lowering_cases.txt").read_text().splitlines():
        if line.startswith("["):
            inputs = line[1:-1]
        elif line and not line.startswith("#"):
            found.append((inputs, line))
    return found


CASES = cases()


def program_of(inputs: str, call: str) -> tuple[Program, dict[str, np.ndarray]]:
    """A program of one torch op, typed by running it, and random values for its inputs."""
    signature = "%" + inputs.replace("], ", "], %")
    parsed = parse_program(f"graph G({signature}) {{\n  %r: f32[] = {call}\n  return %r\n}}\nentry G\n")
    graph = parsed.main
    values = {node.name: random_values(node.name, node.tensor) for node in graph.inputs}
    node = graph["r"]
    attrs = {name: _bound(value) for name, value in node.attrs.items()}
    result = EVALUATORS["aten"](node, [None if o is None else values[o] for o in node.operands], attrs, ENV)
    names = {size: symbol for size, symbol in NAMES.items() if str(symbol) in inputs}
    types = tuple(_type(r, names) for r in result) if isinstance(result, tuple) else _type(result, names)
    node = replace(node, type=types)
    if not isinstance(types, tuple):
        return Program({"G": graph.replaced([*graph.inputs, node])}, "G"), values
    items = [Node(f"r_{i}", "item", ("r",), {"index": i}, t, None, frozenset({"r"})) for i, t in enumerate(types)]
    outputs = [item.name for item in items]
    return Program({"G": Graph("G", [*graph.inputs, node, *items], outputs)}, "G"), values


def _bound(value):
    if isinstance(value, tuple):
        return tuple(map(_bound, value))
    return value.evaluate(ENV) if isinstance(value, Expr) else value


def _type(value, names) -> Tensor:
    dtype = str(value.dtype).removeprefix("torch.").replace("float64", "float32")
    return Tensor(dtype, tuple(names.get(size, size) for size in value.shape))


def random_values(name: str, type_: Tensor) -> np.ndarray:
    random, shape = np.random.default_rng(len(name) + ord(name[0])), concrete(type_, ENV)
    if type_.dtype == "bool":
        return (random.integers(0, 3, shape) > 0) | (np.arange(shape[-1]) == 0)  # no row of masks is empty
    if type_.dtype == "int32":
        return np.sort(random.integers(0, 5, shape)).astype("int32")  # ends of groups
    if type_.dtype == "int64":
        return random.integers(0, 3, shape) if name != "x" else random.integers(0, 5, shape)
    values = random.normal(size=shape)
    return np.abs(values) + 0.1 if name == "v" and len(shape) == 1 else values


@pytest.mark.parametrize(("inputs", "call"), CASES, ids=[call for _, call in CASES])
def test_lowering_computes_what_torch_does(inputs, call):
    program, values = program_of(inputs, call)
    domain = ("sqrt", "log", "rsqrt", "log1p", "log2", "pow(%x, exponent=0.5")
    if any(f"aten.{name}(" in call for name in domain):
        values = {name: np.abs(value) + (1 if value.dtype.kind == "i" else 0.1) for name, value in values.items()}
    lowered = lower_aten(program)
    verify(lowered, "ops")
    assert parse_program(format_program(lowered)).main.nodes.keys() == lowered.main.nodes.keys()
    validate(program, lowered, values, {}.__getitem__, EVALUATORS, name=call)


def test_every_rule_is_tried():
    """A rule no case above exercises is not known to be right."""
    used = set()
    for inputs, call in CASES:
        for node in lower_aten(program_of(inputs, call)[0]).main:
            used |= node.origin
    untried = {rule.name for rule in core_rules()} - used
    assert not untried, sorted(untried)


def test_an_op_without_a_lowering_is_an_error_with_its_place():
    program = parse_program(
        "graph G(%x: f32[batch, 8]) {\n  %y: f32[batch, 8] = aten.special_bessel_j0(%x)  # modeling_foo.py:12\n"
        "  return %y\n}\nentry G\n"
    )
    with pytest.raises(ConversionError) as raised:
        lower_aten(program)
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "unsupported-op" and "modeling_foo.py:12" in diagnostic.location
    assert "aten.special_bessel_j0(%x)" in diagnostic.excerpt and ".rules" in diagnostic.hint


MUTATIONS = [
    ("elementwise", "rewrite ops.gelu(x, approximate=false)", "rewrite ops.gelu(x, approximate=true)", "aten.gelu(%x)"),
    ("arithmetic", "rewrite ops.subtract(c, a)", "rewrite ops.subtract(a, c)", "aten.rsub(%x, other=1.0)"),
    ("reductions", "rewrite ops.softmax(x, axis=d)", "rewrite ops.softmax(x, axis=0)", "aten.softmax(%x, dim=-1)"),
    ("shapes", "rewrite ops.tril(x, k=k)", "rewrite ops.triu(x, k=k)", "aten.tril(%x)"),
    ("products", "epsilon=e)", "epsilon=0.001)", "aten.layer_norm(%x, normalized_shape=(4,), eps=0.5)"),
]


@pytest.mark.parametrize(("file", "old", "new", "call"), MUTATIONS, ids=[call for *_, call in MUTATIONS])
def test_a_wrong_rule_is_found(file, old, new, call):
    text = Path(lower_aten_module.__file__).with_name(f"{file}.rules").read_text()
    assert old in text
    program, values = program_of("x: f32[batch, seq, 4]", call)
    right, wrong = (program.map(lambda g, t=t: apply_rules(g, parse_rules(t))) for t in (text, text.replace(old, new)))
    validate(program, right, values, {}.__getitem__, EVALUATORS)
    with pytest.raises(ConversionError, match="miscompile"):
        validate(program, wrong, values, {}.__getitem__, EVALUATORS)


@pytest.mark.parametrize("step", lower_aten_module.STEPS, ids=lambda step: step.__name__)
def test_the_docstring_shows_what_the_step_does(step):
    text = inspect.getdoc(step)
    assert text is not None
    before, after = (textwrap.dedent(part).strip() + "\n" for part in text.split("Before:")[1].split("After:"))
    assert format_program(step(parse_program(before))) == after


BATCH_NORM = """
graph Norm(%x: f32[batch, 6{sizes}]) {{
  param @w: f32[6]
  param @b: f32[6]
  param @m: f32[6]
  param @v: f32[6]
{call}
  return %y
}}

entry Norm
"""
FORMS = (
    "  %all: (f32[batch, 6{sizes}], f32[0], f32[0]) = aten._native_batch_norm_legit_no_training"
    "(%x, @w, @b, @m, @v, momentum=0.1, eps=0.01)\n  %y: f32[batch, 6{sizes}] = item(%all, index=0)",
    "  %y: f32[batch, 6{sizes}] = aten.batch_norm"
    "(%x, @w, @b, @m, @v, training=false, momentum=0.1, eps=0.01, cudnn_enabled=true)",
)


@pytest.mark.parametrize("form", FORMS, ids=["several results", "one result"])
@pytest.mark.parametrize(("sizes", "attrs"), [("", {}), (", 8", {"axis": 1}), (", 8, 8", {"axis": 1})])
def test_a_batch_norm_on_parameters_is_a_layer(sizes, attrs, form):
    """What it keeps of its statistics in training is seen here alone: the operation has no momentum."""
    program = parse_program(BATCH_NORM.format(sizes=sizes, call=form.format(sizes=sizes)))
    lowered = lower_aten(program)
    verify(lowered, "ops")
    node = lowered.main["y"]
    assert node.op == "layers.BatchNormalization"
    assert dict(node.attrs) == {**attrs, "momentum": 0.9, "epsilon": 0.01}
    inputs = {"x": random_values("x", program.main["x"].tensor)}
    validate(program, lowered, inputs, lambda path: random_values(path, Tensor("float32", (6,))), EVALUATORS, 1e-10)
