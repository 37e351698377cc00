"""Each pass on small programs: what it gives, when it must not fire, and that it computes the same numbers."""

import zlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import golden_files
import numpy as np
import pytest

from hf2khc.capture.aten import aten_evaluator
from hf2khc.diagnostics import ConversionError
from hf2khc.ir.evaluate import keras_evaluators
from hf2khc.ir.expr import evaluate
from hf2khc.ir.graph import Graph, Program, callee_of, join
from hf2khc.ir.text import format_program, parse_program
from hf2khc.ir.types import concrete
from hf2khc.ir.validate import validate
from hf2khc.ir.verify import verify
from hf2khc.passes.pipeline import every_pass

PASSES = {step.__name__: step for _, step in every_pass()}
FILES = sorted(path.stem for path in golden_files.FOLDER.glob("*.test"))
CASES = [case for step in FILES for case in golden_files.cases(step)]
EVALUATORS = {**keras_evaluators(), "aten": aten_evaluator()}
SIZES = {"batch": 2, "seq": 5, "decoder_seq": 7, "heads": 3}


@pytest.mark.parametrize("step", FILES)
def test_golden(step, request):
    found = [
        golden_files.Case(step, case.title, case.before, golden_files.result(PASSES[step], case))
        for case in golden_files.cases(step)
    ]
    if request.config.getoption("--update"):
        golden_files.write(step, found)
    assert found == list(golden_files.cases(step))


def test_every_pass_has_a_file():
    assert sorted(PASSES) == FILES


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.step}: {case.title}")
def test_cases_are_programs_and_compute_the_same(case):
    before = parse_program(case.before)
    assert format_program(before) == case.before
    verify(before, None)
    if "graph" not in case.after:
        return
    after = parse_program(case.after)
    verify(after, None)
    assert error(before, after) < 1e-12
    assert format_program(PASSES[case.step](after)) == case.after, "a second run changes something"


def error(before: Program, after: Program) -> float:
    """The largest relative difference in float64, on random inputs and parameters."""
    inputs = {node.name: array(node.name, node.tensor) for node in before.main.inputs}
    shapes = {**dict(parameters(after.main, after, "")), **dict(parameters(before.main, before, ""))}
    values = {path: array(path, type_) for path, type_ in shapes.items()}
    return validate(before, after, inputs, values.__getitem__, EVALUATORS, 1e-12)


def array(name: str, type_) -> np.ndarray:
    """A random value; integers are small enough to be rows of every table."""
    random, shape = np.random.default_rng(zlib.crc32(name.encode())), concrete(type_, SIZES)
    if type_.is_floating:
        return random.normal(size=shape)
    return random.integers(0, 2 if type_.dtype == "bool" else 4, size=shape).astype(type_.dtype)


def parameters(graph: Graph, program: Program, path: str, env: Mapping[str, object] = MappingProxyType({})) -> Iterator:
    """Absolute path and type of each parameter."""
    for node in graph:
        if node.op == "param":
            yield join(path, node.name[1:]), node.tensor
        for i, inner in enumerate(instances(node, env)):
            callee = program.graphs[callee_of(node, i)]
            given = {name: evaluate(node.attrs[name], env) for name in callee.parameters}
            yield from parameters(callee, program, join(path, inner), given)


def instances(node, env) -> list[str]:
    if node.op == "call":
        return [node.attrs["path"]]
    if node.op != "loop":
        return []
    count = evaluate(node.attrs["count"], env)
    return [node.attrs["path"].replace("{i}", str(node.attrs["start"] + i)) for i in range(count)]


# --- broken passes ---------------------------------------------------------------------------------------------------

MUTATIONS = [
    ("split_fused_linear", 0, '("slice", 8, 12, none)', '("slice", 9, 13, none)'),
    ("use_hub_layers", 1, "scaling_factor=8.0)\n  return", "scaling_factor=4.0)\n  return"),
    ("recognize_frequencies", 0, "max_wavelength=1000.0", "max_wavelength=1001.0"),
    ("lower_frequencies", 0, "x2=-4", "x2=-5"),
    ("align_layers", 1, "call(%a, %bias, %mask, graph=\"Masked\"", "call(%a, %bias, %mask, graph=\"Full\""),
    ("roll_loops", -1, '("Full", "Masked", "Full")', '("Full", "Full", "Masked")'),
    ("split_fused_linear", 0, "%k_kernel, %k_bias", "%v_kernel, %k_bias"),
    ("split_fused_linear", 0, "%q: f32[batch, seq, 8] = layers.Dense(%x, %q_kernel, %q_bias, units=8)",
     "%q: f32[batch, seq, 8] = layers.Dense(%x, %q_kernel, units=8, use_bias=false)"),
    ("merge_sizes", 0, 'path="b", units=6', 'path="a", units=6'),
    ("merge_sizes", 1, "num_layers=3", "num_layers=2"),
    ("recognize_idioms", 0, "epsilon=1e-06", "epsilon=1e-05"),
    ("recognize_idioms", 3, "approximate=true", "approximate=false"),
    ("recognize_idioms", 5, "scale=0.25", "scale=0.5"),
    ("recognize_norms", 0, "x2=1.0", "x2=0.0"),
    ("recognize_norms", 1, "@weight, epsilon=1e-05, center=false", "epsilon=1e-05, scale=false, center=false"),
    ("lower_aten", 0, "ops.add(%h_matmul, @bias)", "ops.add(%h_matmul, @norm)"),
    ("lower_aten", 0, "ops.matmul(%x, %h_transpose)", "ops.matmul(%x, @weight)"),
    ("lower_aten", 2, ", _, %m, scale", ", scale"),
    ("simplify", -1, "ops.divide(%y", "ops.multiply(%y"),
    ("sink_transposes", 0, "axis=2)\n  return", "axis=1)\n  return"),
    ("sink_transposes", 5, "(0, 2, 1)", "(0, 1, 2)"),
    ("sink_transposes", 6, "axes=(1, 0, 2, 3)", "axes=(1, 0, 3, 2)"),
    ("sink_transposes", -7, "axes=(0, 2, 3, 1))\n  %y", "axes=(0, 3, 2, 1))\n  %y"),
    ("sink_transposes", -4, "(0, 0), (3, 0)))", "(0, 0), (0, 3)))"),
    ("sink_transposes", -3, "ops.stack(%n, %x", "ops.stack(%x, %n"),
    ("sink_transposes", -2, "ops.exp(%scale_turned)", "ops.negative(%scale_turned)"),
    ("project_heads", 0, "newshape=(8, 3, 4)", "newshape=(8, 4, 3)"),
    ("project_heads", 0, 'equation="bquh,uhm->bqm"', 'equation="bquh,uhm->bmq"'),
    ("channels_last_inputs", 0, "permute=(0, 2, 3, 1)", "permute=(0, 3, 2, 1)"),
    ("recognize_masks", 0, "window=3", "window=2"),
    ("lower_masks", 0, "window=(2, 2147483647, 3)", "window=(3, 2147483647, 3)"),
    ("lower_masks", 1, "ops.less_equal", "ops.less"),
    ("trim_padding", 0, "(2, 0)", "(0, 2)"),
    ("tie_embeddings", 0, "ops.add(%z_reverse, @head.bias)", "ops.subtract(%z_reverse, @head.bias)"),
    ("share_parameters", 0, "ops.add(%x, %eoi)", "ops.subtract(%x, %eoi)"),
    ("share_parameters", 2, "key=(0,)", "key=(1,)"),
    ("pad_heads", 0, "dot_product_attention(%q_padded, %k_padded", "dot_product_attention(%q_padded, %q_padded"),
    ("simplify", 3, "ops.concatenate(%b, %c, axis=-1)", "ops.concatenate(%c, %b, axis=-1)"),
    ("pad_heads", 2, "scale=0.5", "scale=0.4"),
    ("group_queries", 0, "ops.reshape(%swapped_query", "ops.reshape(%split_query"),
    ("group_queries", 5, "bqgrd,bkgd->bgrqk", "bqgrd,bkgd->brgqk"),
    ("group_queries", 5, "bgrqk,bkgd->bqgrd", "bgrqk,bkgd->bqrgd"),
    ("group_queries", 0, "ops.reshape(%swapped_result", "ops.reshape(%split_result"),
    ("group_queries", 0, "ops.repeat(%mask, repeats=2", "ops.tile(%mask, repeats=(1, 1, 2, 1)"),
    ("outline_parameters", 0, "ops.add(%b, %scale)", "ops.subtract(%b, %scale)"),
    ("merge_graphs", 0, 'path="h.0", x2=2.0', 'path="h.0", x2=3.0'),
    ("roll_loops", 0, "scale=(2.0, 3.0, 3.0)", "scale=(3.0, 2.0, 3.0)"),
    ("roll_loops", 0, "count=3", "count=2"),
    ("hoist_loops", 1, "scale=(2.0, 3.0)", "scale=(2.0, 2.0)"),
    ("inline_layers", 0, "@gate)", "@output_norm.weight)"),
    ("fold_constants", 1, "fill_value=7", "fill_value=6"),
    ("inline_numbers", 0, "x2=2.5", "x2=2.4"),
    ("inline_numbers", 0, "x1=-3.0", "x1=3.0"),
    ("inline_numbers", 2, "x2=0.5", "x2=0.6"),
    ("compare_positions", 0, "x2=2", "x2=1"),
    ("compare_positions", 0, "%before_keys_axes, %before_queries_axes", "%before_queries_axes, %before_keys_axes"),
    ("compute_tables", 0, "x2=-3", "x2=3"),
    ("compute_tables", 0, "x2=4", "x2=3"),
    ("compute_tables", 1, "axis=(1,)", "axis=(0,)"),
    ("index_by_arange", 0, "dim=1)", "dim=0)"),
    ("name_inputs", 0, "%y: f32[batch, 8] = ops.add(%x_2, %x_1)", "%y: f32[batch, 8] = ops.add(%x, %x_1)"),
    ("outline_rotary", 1, "%half, axis=2", "%s, axis=2"),
]  # fmt: skip


@pytest.mark.parametrize(("step", "number", "old", "new"), MUTATIONS, ids=[f"{m[0]}: {m[3][:30]}" for m in MUTATIONS])
def test_validation_finds_a_broken_pass(step, number, old, new):
    case = list(golden_files.cases(step))[number]
    assert case.after.count(old) >= 1
    broken = case.after.replace(old, new)
    with pytest.raises(ConversionError):
        error(parse_program(case.before), parse_program(broken))


MALFORMED = [
    ("split_fused_linear", 0, "%k_kernel, %k_bias", "%k_colonel, %k_bias", "no value k_colonel"),
    ("lower_aten", 0, "axis=-1, epsilon", "axes=-1, epsilon", "has no argument axes"),
    ("lower_aten", 0, "ops.gelu", "ops.glue", "has no ops.glue"),
    ("hoist_loops", 1, "carry=1", "carry=2", "carry"),
    ("roll_loops", 0, "loop(%x, %m,", "loop(%x,", "takes 2"),
    ("merge_graphs", 0, 'path="h.0", x2=2.0', 'path="h.0"', "x2"),
    ("fold_constants", 0, "stop=seq", "stop=length", "nothing binds the name length"),
]  # fmt: skip


@pytest.mark.parametrize(("step", "number", "old", "new", "message"), MALFORMED)
def test_the_verifier_finds_a_malformed_result(step, number, old, new, message):
    case = list(golden_files.cases(step))[number]
    assert old in case.after
    with pytest.raises(ConversionError) as caught:
        verify(parse_program(case.after.replace(old, new)), None)
    assert message in str(caught.value)
