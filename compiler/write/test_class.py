"""The tests that come with a package."""

from hf2khc.ir.types import Tensor
from hf2khc.write.examples import argument, input_data, shape, tiny_config
from hf2khc.write.plan import Plan


def write_test(plan: Plan) -> str:
    """The unformatted text of `<package>_backbone_test.py`."""
    name = f"{plan.prefix}Backbone"
    parts = [_head(plan, name), _setup(plan, name), _basics(plan), _lengths(plan), _config(name), saving(name)]
    return "\n".join(part for part in parts if part)


def _head(plan: Plan, name: str) -> str:
    return head(name, f"from {plan.package}.{plan.package}_backbone import {name}")


def head(name: str, imports: str) -> str:
    """The beginning of a test's file, up to its class.

    Args:
        name: of the class that is tested.
        imports: lines that import from the package.
    """
    return f"""import os
import tempfile
import unittest

import keras
import numpy as np

{imports}


def to_numpy(outputs):
    return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)


class {name}Test(unittest.TestCase):"""


def _setup(plan: Plan, name: str) -> str:
    config = " ".join(f'"{key}": {argument(value)},' for key, value in tiny_config(plan).items())
    return setup(plan, config)


def setup(plan: Plan, arguments: str) -> str:
    """What a test begins with, and how it compares outputs.

    Args:
        plan: whose inputs the model takes.
        arguments: the entries of the dictionary that the model is made with.
    """
    return f"""
    def setUp(self):
        self.init_kwargs = {{ {arguments} }}
        self.input_data = {input_data(plan, {"batch": 2, "seq": 5})}

    def assert_all_close(self, expected, actual):
        keras.tree.map_structure(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5),
            to_numpy(expected),
            to_numpy(actual),
        )
"""


def _expected(plan: Plan, sizes: dict[str, int]) -> dict[str, str]:
    """For each output how its shape is written, at these sizes."""
    found = {}
    for name, node in zip(plan.outputs, plan.program.main.outputs, strict=True):
        type_ = plan.program.main[node].type
        assert isinstance(type_, Tensor)
        found[name] = str(shape(type_, plan, sizes))
    return found


def shape_checks(plan: Plan, sizes: dict[str, int], indent: str) -> str:
    """Statements that compare the shape of every output."""
    expected = _expected(plan, sizes)
    if len(expected) == 1:
        return f"{indent}self.assertEqual(tuple(outputs.shape), {next(iter(expected.values()))})\n"
    checks = [f'self.assertEqual(tuple(outputs["{k}"].shape), {v})' for k, v in expected.items()]
    return "".join(f"{indent}{check}\n" for check in checks)


def prediction(plan: Plan) -> str:
    """The call that predicts: what has no batch in front cannot be cut, and goes in as a whole."""
    batched = all(str(node.tensor.shape[0]) == "batch" for node in plan.program.main.inputs)
    return "model.predict(self.input_data, verbose=0)" if batched else "model.predict_on_batch(self.input_data)"


def _basics(plan: Plan) -> str:
    return f"""
    def test_backbone_basics(self):
        model = {plan.prefix}Backbone(**self.init_kwargs)
        outputs = model(self.input_data)
{shape_checks(plan, {"batch": 2, "seq": 5}, " " * 8)}\
        self.assert_all_close(outputs, {prediction(plan)})

    def test_mixed_precision(self):
        model = {plan.prefix}Backbone(**self.init_kwargs, dtype="mixed_bfloat16")
        for output in keras.tree.flatten(model(self.input_data)):
            self.assertTrue(bool(keras.ops.all(keras.ops.isfinite(output))))
"""


def _lengths(plan: Plan) -> str:
    if not any("seq" in node.tensor.symbols for node in plan.program.main.inputs):
        return ""
    blocks = []
    for sizes in ({"batch": 1, "seq": 3}, {"batch": 3, "seq": 8}):
        blocks.append(f"        outputs = model({input_data(plan, sizes)})\n" + shape_checks(plan, sizes, " " * 8))
    return f"""
    def test_variable_sequence_lengths(self):
        model = {plan.prefix}Backbone(**self.init_kwargs)
{"".join(blocks)}"""


def _config(name: str) -> str:
    return f"""
    def test_config(self):
        model = {name}(**self.init_kwargs)
        config = model.get_config()
        for key, value in self.init_kwargs.items():
            self.assertEqual(config[key], value)
        copy = {name}.from_config(config)
        self.assertEqual(copy.get_config(), config)
        self.assertEqual(
            [weight.path for weight in copy.weights],
            [weight.path for weight in model.weights],
        )
"""


def saving(name: str, **options: str) -> str:
    """The tests that a saved model gives the same outputs.

    Args:
        name: of the class.
        options: further arguments of `from_preset`, in source text.
    """
    given = "".join(f", {key}={text}" for key, text in options.items())
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
            restored = {name}.from_preset(directory{given})
        self.assert_all_close(outputs, restored(self.input_data))
"""
