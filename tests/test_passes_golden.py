"""Each pass on small programs: what it gives, when it must not fire, and that it computes the same numbers."""

import re
import zlib
from collections.abc import Iterator

import golden_files
import numpy as np
import pytest

from hf2khc.capture.aten import aten_evaluator
from hf2khc.diagnostics import ConversionError
from hf2khc.ir.evaluate import keras_evaluators
from hf2khc.ir.graph import Graph, Program, join
from hf2khc.ir.text import format_program, parse_program
from hf2khc.ir.types import concrete
from hf2khc.ir.validate import validate
from hf2khc.ir.verify import verify
from hf2khc.passes.pipeline import PIPELINE

PASSES = {step.__name__: step for level in PIPELINE for step in level.passes}
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
    assert FILES == sorted(PASSES)


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
    """A random value: small integers, half of the truth values true."""
    random, shape = np.random.default_rng(zlib.crc32(name.encode())), concrete(type_, SIZES)
    if type_.is_floating:
        return random.normal(size=shape)
    return random.integers(0, 2, size=shape).astype(type_.dtype)


def parameters(graph: Graph, program: Program, path: str) -> Iterator[tuple]:
    """Absolute path and type of each parameter."""
    for node in graph:
        if node.op == "param":
            yield join(path, node.name[1:]), node.tensor
        for inner in instances(node):
            yield from parameters(program.graphs[node.attrs["graph"]], program, join(path, inner))


def instances(node) -> list[str]:
    if node.op == "call":
        return [node.attrs["path"]]
    if node.op != "loop":
        return []
    return [node.attrs["path"].replace("{i}", str(node.attrs["start"] + i)) for i in range(node.attrs["count"])]
