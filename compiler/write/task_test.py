"""The test of a task that comes with a package."""

from hf2khc.ir.types import Tensor
from hf2khc.write.examples import argument, input_data, shape, tiny_config
from hf2khc.write.plan import Plan
from hf2khc.write.split import backbone_plan, task_fields
from hf2khc.write.task_class import task_class, task_module


def write_task_test(plan: Plan) -> str:
    """The unformatted text of `<package>_<task>_test.py`."""
    name = task_class(plan)
    return "\n".join([_head(plan, name), _setup(plan), _basics(plan, name), _saving(name)])


def _head(plan: Plan, name: str) -> str:
    return f"""import os
import tempfile
import unittest

import keras
import numpy as np

from {plan.package}.{plan.package}_backbone import {plan.prefix}Backbone
from {plan.package}.{task_module(plan)} import {name}


def to_numpy(outputs):
    return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)


class {name}Test(unittest.TestCase):"""


def _setup(plan: Plan) -> str:
    base, own = backbone_plan(plan), {field.name for field in task_fields(plan)}
    given = {"base": tiny_config(base), "own": {k: v for k, v in tiny_config(plan).items() if k in own}}
    text = {
        key: " ".join(f'"{name}": {argument(value)},' for name, value in config.items())
        for key, config in given.items()
    }
    return f"""
    def setUp(self):
        self.init_kwargs = {{
            "backbone": {plan.prefix}Backbone(**{{ {text["base"]} }}),
            "preprocessor": None,
            {text["own"]}
        }}
        self.input_data = {input_data(plan, {"batch": 2, "seq": 5})}

    def assert_all_close(self, expected, actual):
        keras.tree.map_structure(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5),
            to_numpy(expected),
            to_numpy(actual),
        )
"""


def _basics(plan: Plan, name: str) -> str:
    checks = []
    for output, node in zip(plan.outputs, plan.program.main.outputs, strict=True):
        type_ = plan.program.main[node].type
        assert isinstance(type_, Tensor)
        value = "outputs" if len(plan.outputs) == 1 else f'outputs["{output}"]'
        checks.append(f"self.assertEqual(tuple({value}.shape), {shape(type_, plan, {'batch': 2, 'seq': 5})})")
    lines = "\n        ".join(checks)
    return f"""
    def test_task_basics(self):
        model = {name}(**self.init_kwargs)
        outputs = model(self.input_data)
        {lines}
        self.assert_all_close(outputs, model.predict(self.input_data, verbose=0))
"""


def _saving(name: str) -> str:
    return f"""
    def test_saved_model(self):
        model = {name}(**self.init_kwargs)
        outputs = model(self.input_data)
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "model.keras")
            model.save(path)
            restored = keras.models.load_model(path)
        self.assertIsInstance(restored, {name})
        self.assert_all_close(outputs, restored(self.input_data))

    def test_preset(self):
        model = {name}(**self.init_kwargs)
        outputs = model(self.input_data)
        with tempfile.TemporaryDirectory() as directory:
            model.save_to_preset(directory)
            restored = {name}.from_preset(directory, preprocessor=None)
        self.assert_all_close(outputs, restored(self.input_data))
"""
