"""Inputs that are held at the numbers of an example: what follows from them is computed during the trace."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from torch._subclasses.fake_tensor import FakeTensor
from transformers import pytorch_utils

from hf2khc.capture.build import build_meta, materialise
from hf2khc.capture.examples import checked
from hf2khc.capture.export import export
from hf2khc.capture.importer import import_program
from hf2khc.capture.input_types import Input
from hf2khc.capture.inputs import input_spec, trace_sizes
from hf2khc.capture.known_values import KnownValues, known_inputs
from hf2khc.capture.shapes_alone import shapes_alone
from hf2khc.check.signature import package_inputs
from hf2khc.diagnostics import ConversionError
from hf2khc.ir.expr import Expr
from hf2khc.ir.types import Tensor
from hf2khc.write.backbone_class import _input

PATCHES = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
GRIDS = np.array([[1, 2], [2, 2]])


class Grids(transformers.PreTrainedModel):
    config_class = transformers.BertConfig
    main_input_name = "patches"

    def __init__(self, config):
        super().__init__(config)
        self.scale = torch.nn.Linear(4, 4)
        self.post_init()

    def forward(self, patches, grids):
        ends = (grids[:, 0] * grids[:, 1]).cumsum(0).tolist()
        parts = [patches[start:end].mean(0) for start, end in zip([0, *ends], ends, strict=False)]
        return self.scale(torch.stack(parts))


def captured():
    model = materialise(build_meta(transformers.BertConfig(), Grids))
    spec = input_spec(model, checked([{"patches": PATCHES, "grids": GRIDS}]))
    return model, export(model, spec, trace_sizes(model, spec))


def test_sizes_that_follow_from_a_grid_are_computed():
    model, found = captured()
    assert found.held == ("grids",)
    assert found.notes[-1] == "held at the numbers of the example, and no input of the package: grids"
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
        expected = model(torch.from_numpy(PATCHES), torch.from_numpy(GRIDS))
        torch.testing.assert_close(found.program.module()(patches=torch.from_numpy(PATCHES)), expected)
    program = import_program(found.program, model, found.symbols)
    assert [node.name for node in program.main.inputs] == ["patches"]


def test_only_numbers_that_nothing_describes_are_held():
    spec = (
        Input("input_ids", "int64", ("batch", "seq"), ("randint", 0, 9)),
        Input("grids", "int64", (2, 2), ("given", GRIDS)),
        Input("patches", "float32", (6, 4), ("given", PATCHES)),
    )
    assert known_inputs(spec) == ("grids",)


def test_what_is_traced_is_not_written_into_a_known_value():
    places, traced = torch.zeros(3), torch.ones(3)
    with KnownValues([places]) as known:
        known_sum = places + 1
        assert known.knows(known_sum) and not known.knows(traced + 1)
        places[0] = 2.0
        assert places.tolist() == [2, 0, 0]
        with pytest.raises(ConversionError):
            places[1:] = traced[1:]
        with pytest.raises(ConversionError):
            places.add_(traced)


def test_a_package_is_not_called_with_other_numbers_than_it_is_made_for():
    entry = {"name": "patches", "dtype": "float32", "shape": [6, 4]}
    signature = {"inputs": {"patches": entry}, "outputs": {}, "held": {"grids": GRIDS.tolist()}}
    assert list(package_inputs(signature, {"patches": PATCHES, "grids": GRIDS})) == ["patches"]
    with pytest.raises(ConversionError, match="other numbers"):
        package_inputs(signature, {"patches": PATCHES, "grids": GRIDS + 1})


@pytest.mark.parametrize(
    ("batch", "printed"), [(Expr.of("batch"), "keras.Input(shape=(4,)"), (6, "keras.Input(batch_shape=(6, 4)")]
)
def test_an_input_without_a_free_batch_has_its_whole_shape(batch, printed):
    node = SimpleNamespace(name="patches", tensor=Tensor("float32", (batch, 4)))
    plan = SimpleNamespace(inputs={"patches": ("patches", "float32")})
    scope = SimpleNamespace(shape=lambda sizes: repr(tuple(sizes)))
    assert printed in _input(node, "patches", plan, scope)


def test_a_pass_in_shapes_alone_leaves_nothing_in_the_caches_of_transformers():
    kept = pytorch_utils.compile_compatible_method_lru_cache()(torch.ones)
    with shapes_alone():
        assert isinstance(kept(3), FakeTensor)
    assert kept(3).numpy().sum() == 3
