"""Random modules through the whole compiler: torch, the program after every pass, and the code that is printed.

RANDOM_PROGRAMS=1000 in the environment tries so many; what it finds becomes an example here or a case of another test.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import importlib
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, note, reject, settings

from hf2khc.capture.aten import aten_evaluator
from hf2khc.capture.importer import import_program
from hf2khc.driver.compile import lower
from hf2khc.ir.analysis import constant_paths
from hf2khc.ir.evaluate import keras_evaluators
from hf2khc.ir.float64 import float64
from hf2khc.ir.interpret import interpret
from hf2khc.ir.text import format_program
from hf2khc.ir.validate import relative_error
from hf2khc.weights.transform import evaluate as transform
from hf2khc.write.package import write_package
from hf2khc.write.plan import CONSTANT, Field, Plan
from hf2khc.write.weight_paths import weight_paths

sys.path.insert(0, str(Path(__file__).parent))
from random_modules import BATCH, SEQ, WIDTH, RandomModule, Step, modules

EXAMPLES = int(os.environ.get("RANDOM_PROGRAMS", "8"))
EVALUATORS = {**keras_evaluators(), "aten": aten_evaluator()}
TOLERANCE = 1e-10
# Every package in its own folder: Python remembers modules by name.
PACKAGE = "random_module"


def values(module: RandomModule, batch: int, seq: int) -> dict[str, torch.Tensor]:
    """Inputs, and weights that make every number of the result another one."""
    generator = torch.Generator().manual_seed(batch * 100 + seq)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5 + 0.3)
    x = torch.randn(batch, seq, WIDTH, generator=generator, dtype=torch.float64)
    return {"x": x, "ids": torch.randint(0, 11, (batch, seq), generator=generator)}


def captured(module: RandomModule):
    """The program of a module, free in its batch and its sequence."""
    batch, seq = torch.export.Dim("batch", min=2), torch.export.Dim("seq", min=6, max=60)
    inputs = (torch.zeros(BATCH, SEQ, WIDTH), torch.zeros(BATCH, SEQ, dtype=torch.int64))
    try:
        exported = torch.export.export(module, inputs, dynamic_shapes=({0: batch, 1: seq}, {0: batch, 1: seq}))
    except torch._dynamo.exc.UserError:
        reject()  # torch fixes a size where one of its own kernels looks at it
    first = next(node for node in exported.graph.nodes if node.name == "x")
    names = dict(zip(map(str, first.meta["val"].shape[:2]), ("batch", "seq"), strict=True))
    return import_program(exported, module, names)


def agree(found, expected) -> None:
    for ours, reference in zip(found, expected, strict=True):
        assert relative_error(ours, reference) <= TOLERANCE


def parameters(module: RandomModule):
    state = {name: tensor.double() for name, tensor in module.state_dict().items()}
    return state.__getitem__


def printed(program, directory: Path, module: RandomModule):
    """The printed package as a model in float64, with the module's weights."""
    constants = {path: program.constants[path] for path in constant_paths(program)}
    fields = tuple(
        Field(f"{CONSTANT}{path}", f"constant_{i}", value.tolist()) for i, (path, value) in enumerate(constants.items())
    )
    inputs = {
        node.name: (node.name, "int32" if "int" in node.tensor.dtype else "float32") for node in program.main.inputs
    }
    outputs = tuple(f"output_{i}" for i in range(len(program.main.outputs)))
    fields = (Field("config.hidden_size", "hidden_dim", WIDTH), *fields)
    plan = Plan(PACKAGE, "Random", program, fields, inputs, outputs)
    shutil.rmtree(directory / PACKAGE, ignore_errors=True)
    (directory / PACKAGE).mkdir()
    for name, text in write_package(plan).items():
        (directory / PACKAGE / name).write_text(text)
        if name.endswith("_backbone.py"):
            note(text)
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]
    importlib.invalidate_caches()
    cls = importlib.import_module(f"{PACKAGE}.{PACKAGE}_backbone").RandomBackbone
    model = cls(**{field.name: field.value for field in plan.fields})
    rows = {row.keras: row for row in weight_paths(plan)}
    source = parameters(module)
    for variable in model.weights:
        row = rows[variable.path]
        sources = [source(s).numpy() for s in row.sources] or [constants[row.constant]]
        variable.assign(transform(row.transform, sources))
    return model, plan


@pytest.fixture(scope="module")
def directory():
    with tempfile.TemporaryDirectory() as folder:
        sys.path.insert(0, folder)
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        yield Path(folder)
        sys.dont_write_bytecode = before
        sys.path.remove(folder)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES < 100, suppress_health_check=list(HealthCheck))
@given(module=modules())
# Positions behind a layer that nothing else shows the size of; one of several results taken twice; one block called
# twice in a row and once again.
@example(module=RandomModule((Step("embedding", (1,), 10), Step("scatter", (2,), 33))))
@example(module=RandomModule((Step("scatter", (0,), 21), Step("scatter", (0,), 3))))
@example(
    module=RandomModule(
        tuple(
            Step(op, (i,), n)
            for op, i, n in (
                ("block", 0, 6),
                ("groups", 2, 7),
                ("block", 2, 20),
                ("embedding", 1, 25),
                ("twice", 3, 33),
                ("pad", 6, 22),
            )
        )
    )
)
def test_every_stage_computes_what_torch_does(directory, module):
    module.eval()
    note(str(module.steps))
    program = captured(module)
    note(format_program(program))
    inputs = values(module, 3, 9)
    with torch.no_grad():
        expected = module.double()(**inputs)
    with float64():
        agree(interpret(program, inputs, parameters(module), EVALUATORS), expected)

        def check(stage, before, after) -> None:
            note(f"{stage}: {format_program(after)}") if stage == "name_layers" else note(stage)
            agree(interpret(after, inputs, parameters(module), EVALUATORS), expected)

        program = list(lower(program, check).values())[-1]
        model, plan = printed(program, directory, module)
        given_ = {plan.inputs[node.name][0]: np.asarray(inputs[node.name]) for node in program.main.inputs}
        found = model(given_)
        agree([found[key] for key in plan.outputs] if isinstance(found, dict) else [found], expected)
