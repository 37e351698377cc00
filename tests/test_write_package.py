"""The code writer: what is printed computes what the program says, and reads as it should."""

import ast
import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hf2khc.diagnostics import ConversionError
from hf2khc.ir.evaluate import keras_evaluators
from hf2khc.ir.expr import evaluate
from hf2khc.ir.graph import callee_of, join
from hf2khc.ir.interpret import interpret
from hf2khc.ir.text import parse_program
from hf2khc.ir.types import Differs, Tensor, concrete
from hf2khc.weights.transform import evaluate as transform
from hf2khc.write.analysis import Analysis, child_path, iteration_value
from hf2khc.write.layer_class import module_name
from hf2khc.write.operations import _key
from hf2khc.write.package import write_package
from hf2khc.write.scope import Scope
from hf2khc.write.weight_paths import weight_paths

sys.path.insert(0, str(Path(__file__).parent))
from write_models.plans import PLANS, bert, constants, llama, mixed, stages

LENGTHS = {"batch": 2, "seq": 7}


def save(plan, directory: Path) -> None:
    folder = directory / plan.package
    folder.mkdir(exist_ok=True)
    for name, text in write_package(plan).items():
        (folder / name).write_text(text)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The packages on disk, importable: the folder and their plans."""
    directory = tmp_path_factory.mktemp("packages")
    plans = {name: constants(make()) for name, make in PLANS.items()}
    for plan in plans.values():
        save(plan, directory)
    sys.path.insert(0, str(directory))
    yield directory, plans
    sys.path.remove(str(directory))


_models: dict = {}


def build(plan):
    """The backbone at the plan's own config, built once."""
    if plan.package not in _models:
        module = importlib.import_module(f"{plan.package}.{plan.package}_backbone")
        cls = getattr(module, f"{plan.prefix}Backbone")
        _models[plan.package] = cls(**{field.name: field.value for field in plan.fields})
    return _models[plan.package]


def random_parameters(plan) -> dict[str, np.ndarray]:
    """An array for every parameter of the transformers model, by absolute path."""
    generator, found = np.random.default_rng(0), {}
    sizes = dict(every_parameter(plan, plan.program.main, "", plan.values))
    for path in sorted(sizes):
        found[path] = generator.normal(0, 0.5, sizes[path])
    return found


def every_parameter(plan, graph, path: str, env) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Absolute path and shape."""
    yield from ((join(path, node.name[1:]), concrete(node.tensor, env)) for node in graph.of("param"))
    for node in graph.of("call", "loop"):
        start = evaluate(node.attrs.get("start", 0), env)
        for i in range(1 if node.op == "call" else evaluate(node.attrs["count"], env)):
            callee = plan.program.graphs[callee_of(node, i)]
            given = {name: iteration_value(node, name, env, i) for name in callee.parameters}
            yield from every_parameter(plan, callee, join(path, child_path(node, start + i)), {**env, **given})


def random_inputs(plan) -> dict[str, np.ndarray]:
    generator, found = np.random.default_rng(1), {}
    for node in plan.program.main.inputs:
        shape = concrete(node.tensor, {**LENGTHS, **plan.values})
        if node.tensor.is_floating:
            found[node.name] = generator.normal(size=shape).astype("float32")
        elif "mask" in node.name:
            found[node.name] = (np.arange(shape[1])[None] < [[shape[1]], [4]]).astype("int32")
        else:
            found[node.name] = generator.integers(0, 2, shape).astype("int32")
    return found


def fill(model, plan, parameters) -> None:
    rows = {row.keras: row for row in weight_paths(plan)}
    for variable in model.weights:
        row = rows[variable.path]
        sources = [parameters[s] for s in row.sources] or [plan.program.constants[row.constant]]
        variable.assign(transform(row.transform, sources).astype("float32"))


@pytest.mark.parametrize("name", PLANS)
def test_computes_what_the_program_says(written, name):
    import keras

    plan = written[1][name]
    parameters, inputs = random_parameters(plan), random_inputs(plan)
    model = build(plan)
    fill(model, plan, parameters)
    outputs = model({plan.inputs[key][0]: value for key, value in inputs.items()})
    found = [outputs[key] for key in plan.outputs] if isinstance(outputs, dict) else [outputs]
    expected = interpret(plan.program, inputs, parameters.__getitem__, keras_evaluators(), env=plan.values)
    for ours, reference in zip(found, expected, strict=True):
        reference = reference.detach().numpy()
        error = np.abs(keras.ops.convert_to_numpy(ours) - reference).max() / np.abs(reference).max()
        assert reference.dtype == np.float64 and error < 3e-6


@pytest.mark.parametrize("name", PLANS)
def test_weight_paths_are_the_variables_of_the_model(written, name):
    plan = written[1][name]
    model, paths = build(plan), weight_paths(plan)
    assert sorted(row.keras for row in paths) == sorted(variable.path for variable in model.weights)
    parameters = random_parameters(plan)
    shapes = {variable.path: tuple(variable.shape) for variable in model.weights}
    for row in paths:
        sources = [parameters[s] for s in row.sources] or [plan.program.constants[row.constant]]
        assert transform(row.transform, sources).shape == shapes[row.keras]


@pytest.mark.parametrize("name", PLANS)
def test_config_round_trip(written, name):
    model = build(written[1][name])
    config = model.get_config()
    copy = type(model).from_config(config)
    assert copy.get_config() == config
    assert all(config[field.name] == field.value for field in written[1][name].fields)


@pytest.mark.parametrize("name", PLANS)
def test_layers_are_built_without_being_called(written, name):
    """Loading weights needs a layer's variables before its first call."""
    model = build(written[1][name])
    for layer in model.layers:
        if layer.weights:
            config = layer.get_config()
            fresh = type(layer).from_config(config)
            assert fresh.get_config() == config
            shape = getattr(layer, "_build_shapes_dict", None)
            fresh.build(next(iter(shape.values())))
            assert [w.path.split("/")[1:] for w in fresh.weights] == [w.path.split("/")[1:] for w in layer.weights]


def run_printed_tests(directory: Path, plan, which: str) -> subprocess.CompletedProcess:
    test = directory / plan.package / f"{plan.package}_backbone_test.py"
    env = {**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": str(directory)}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", which, str(test)]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=directory, check=False)


def test_printed_tests_pass(written):
    directory, plans = written
    done = run_printed_tests(directory, plans["bert"], "test")
    assert done.returncode == 0, done.stdout + done.stderr


def test_printed_tests_can_fail(written, tmp_path):
    """The same tests on a backbone that forgets one of its arguments."""
    plan = written[1]["vit"]
    save(plan, tmp_path)
    backbone = tmp_path / "vit" / "vit_backbone.py"
    text = backbone.read_text()
    assert '"hidden_dim": self.hidden_dim,' in text
    backbone.write_text(text.replace('"hidden_dim": self.hidden_dim,', '"hidden_dim": 2 * self.hidden_dim,'))
    done = run_printed_tests(tmp_path, plan, "test_config")
    assert done.returncode != 0 and "test_config" in done.stdout


def test_example_of_the_docstring_runs(written):
    directory, plans = written
    for name, plan in plans.items():
        tree = ast.parse((directory / name / f"{name}_backbone.py").read_text())
        cls = next(node for node in tree.body if isinstance(node, ast.ClassDef))
        example = ast.get_docstring(cls).split("```python")[1].split("```")[0]
        scope: dict = {}
        exec(example, scope)
        assert type(scope["model"]).__name__ == f"{plan.prefix}Backbone"


def test_same_text_under_another_hash_seed():
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1])\n"
        "from write_models.plans import PLANS\n"
        "from hf2khc.write.package import write_package\n"
        "from hf2khc.write.weight_paths import weight_paths\n"
        "print(json.dumps([[write_package(p()), [str(w) for w in weight_paths(p())]] for p in PLANS.values()]))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "77"}
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    other = subprocess.run(command, capture_output=True, text=True, env=env, check=True).stdout
    assert json.loads(other) == [[write_package(p()), [str(w) for w in weight_paths(p())]] for p in PLANS.values()]


@pytest.mark.parametrize("name", PLANS)
def test_style(name):
    """What every printed file keeps to: width, names, no hints, no lambdas, one public class per file."""
    for file, text in write_package(PLANS[name]()).items():
        assert max(map(len, text.splitlines())) <= 80, file
        tree = ast.parse(text)
        if file != "__init__.py":
            assert sum(isinstance(node, ast.ClassDef) for node in tree.body) == 1
        for node in ast.walk(tree):
            assert not isinstance(node, ast.Lambda) or file.endswith("_test.py")
            assert not isinstance(node, ast.arg) or node.annotation is None
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                assert not node.id.rpartition("_")[2].isdigit(), (file, node.id)


def test_no_number_that_the_config_determines():
    """The same program at other sizes prints the same classes; only defaults, docs and tests may differ."""
    plan = llama()
    other = dataclasses.replace(
        plan,
        fields=tuple(dataclasses.replace(f, value=f.value * 2) if isinstance(f.value, int) else f for f in plan.fields),
    )
    first, second = write_package(plan), write_package(other)
    assert first == second


def test_parts_read_as_they_should():
    files = write_package(bert())
    assert "first=self" not in files["bert_backbone.py"]
    assert "layer_scale if i % 2 == 0 else 0.5" in files["bert_backbone.py"]
    assert "for transformer_layer in self.transformer_layers[1:]:" in files["bert_backbone.py"]
    assert "for i in range(1, num_layers):" in files["bert_backbone.py"]
    assert (
        "key, value = ops.split(" in files["bert_self_attention.py"]
        or "k, v = ops.split(" in (files["bert_self_attention.py"])
    )
    assert "self.hidden_dim // self.num_heads" in files["bert_self_attention.py"]
    assert "trainable=False" in files["bert_embeddings.py"]


def fails(plan, code: str) -> str:
    with pytest.raises(ConversionError) as error:
        write_package(plan)
    assert error.value.diagnostics[0].code == code
    return str(error.value)


def mutated(plan, graph: str, node: str, **attrs):
    old = plan.program.graphs[graph]
    nodes = [n.with_attrs(**attrs) if n.name == node else n for n in old]
    graphs = {**plan.program.graphs, graph: old.replaced(nodes)}
    return dataclasses.replace(plan, program=dataclasses.replace(plan.program, graphs=graphs))


def test_layers_of_several_kinds_are_one_loop():
    text = write_package(mixed())["mixed_backbone.py"]
    assert 'if layer_types[i] == "full":' in text and text.count("self.transformer_layers.append(layer)") == 1
    entries = [field for field in mixed().fields if field.source != "config.layer_types"]
    text = write_package(dataclasses.replace(mixed(), fields=tuple(entries)))["mixed_backbone.py"]
    assert "if i % 2 == 0:" in text


def test_values_that_follow_no_pattern_are_listed():
    listed = mutated(bert(), "BertModel", "hidden_states", first=(1.0, 2.0, 5.0, 7.0, 9.0))
    assert "(1.0, 2.0, 5.0, 7.0, 9.0)[i - 1]" in write_package(listed)["bert_backbone.py"].replace("\n", "")


def test_errors():
    unnamed = dataclasses.replace(llama(), fields=tuple(f for f in llama().fields if f.name != "layer_norm_epsilon"))
    assert "config.rms_norm_eps" in fails(unnamed, "unnamed-field")
    fails(mutated(llama(), "LlamaMLP", "gate", colour="red"), "layer-arguments")
    fails(mutated(llama(), "LlamaMLP", "gate", use_bias=True), "layer-weights")
    fails(mutated(llama(), "LlamaMLP", "silu", colour="red"), "op-arguments")
    fails(mutated(llama(), "LlamaMLP", "gate", name="up"), "layer-name")
    fails(mutated(llama(), "LlamaMLP", "gate", name=None), "unnamed-layer")
    fails(dataclasses.replace(bert(), outputs=("only",)), "package-outputs")


def test_an_input_of_a_table_with_one_row_is_zero_in_the_tests():
    plan = dataclasses.replace(bert(), numbers={"token_type_ids": 0})
    text = write_package(plan)["bert_backbone_test.py"]
    assert '"segment_ids": np.zeros((2, 5), dtype="int32")' in text
    assert '"token_ids": np.ones((2, 5), dtype="int32")' in text


def test_keras_infers_a_size_that_follows_no_law():
    plan = bert()
    (name,) = plan.program.graphs["BertEmbeddings"].outputs

    def printed(dim) -> str:
        program = plan.program.map(
            lambda graph: graph.replaced(
                dataclasses.replace(node, type=Tensor("float32", (*node.tensor.shape[:-1], dim)))
                if (graph.name, node.name) == ("BertEmbeddings", name)
                else node
                for node in graph
            )
        )
        return write_package(dataclasses.replace(plan, program=program))["bert_embeddings.py"]

    assert "compute_output_shape" in printed(8) and "compute_output_shape" not in printed(Differs(8))


def test_integers_of_an_example_and_the_smallest_length_are_in_the_tests():
    plan = dataclasses.replace(bert(), numbers={"token_type_ids": [[0, 1, 1, 0, 0]] * 3})
    text = write_package(plan)["bert_backbone_test.py"]
    assert '"segment_ids": np.array([[0, 1, 1, 0, 0]] * 2, dtype="int32")' in text
    assert '"segment_ids": np.ones((3, 8), dtype="int32")' in text, "at another length they mean nothing"
    text = write_package(dataclasses.replace(bert(), least={"seq": 6}))["bert_backbone_test.py"]
    sizes = dict.fromkeys(re.findall(r'"token_ids": np.ones\(\((.*)\), dtype', text))
    assert list(sizes) == ["2, 11", "1, 9", "3, 8"]


def test_a_constant_of_the_model_is_one_argument_however_its_path_is_spelt():
    analysis = Analysis(llama())
    scope = Scope(analysis, analysis.plan.program.main, owner="")
    sources = ("constant.rotary_emb.inv_freq", "constant./rotary_emb.inv_freq")
    assert {scope.field(source) for source in sources} == {"inverse_frequencies"}


def test_layers_with_large_strides_are_known_by_their_weights():
    """Whatever stands for the free size has to be long enough for every window."""
    text = """graph Wave(%samples: f32[batch, samples, 1]) {
  param @first: f32[400, 1, 8]
  param @second: f32[16, 8, 8]
  %x: f32[batch, (samples - 400) // 320 + 1, 8] = layers.Conv1D(%samples, @first, filters=8, kernel_size=(400,), strides=(320,), use_bias=false)
  %y: f32[batch, ((samples - 400) // 320 + 1 - 16) // 8 + 1, 8] = layers.Conv1D(%x, @second, filters=8, kernel_size=(16,), strides=(8,), use_bias=false)
  return %y
}

entry Wave returns "y"
"""  # noqa: E501
    program = parse_program(text)
    analysis = Analysis(dataclasses.replace(llama(), program=program, fields=(), tiny={}))
    assert [analysis.weights(program.main, program.main[name]) for name in "xy"] == [("kernel",), ("kernel",)]


def test_what_says_how_large_an_input_is_no_class_is_told():
    files = write_package(stages())
    conv, stage, net = (files[f"stages_{name}.py"] for name in ("conv", "stage", "backbone"))
    assert "def __init__(self, width, **kwargs):" in conv and "def __init__(self, width, **kwargs):" in stage
    # The channels are those of what it is built on; Keras knows the height and width of what it gives.
    assert "self.conv.build((None, None, None, images_shape[3]))" in conv
    assert "compute_output_shape" not in conv + stage
    assert 'NetStage(width=widths[1], dtype=dtype, name="stages_1")' in net


def test_operands_of_any_number_are_one_argument_each():
    text = """graph Grid(%rows: f32[4], %columns: f32[8]) {
  %grid: (f32[4, 8], f32[4, 8]) = ops.meshgrid(%rows, %columns, indexing="ij")
  %x: f32[4, 8] = item(%grid, index=0)
  %y: f32[4, 8] = item(%grid, index=1)
  %z: f32[4, 8] = ops.add(%x, %y)
  return %z
}

graph Model(%x: f32[batch, 4]) {
  %rows: f32[4] = ops.sum(%x, axis=0)
  %columns: f32[8] = ops.tile(%rows, repeats=2)
  %w: f32[4, 8] = call(%rows, %columns, graph="Grid", path="grid", name="grid")
  %z: f32[batch, 8] = ops.matmul(%x, %w)
  return %z
}

entry Model returns "z"
"""
    assert 'ops.meshgrid(rows, columns, indexing="ij")' in sources(text)


def test_a_variable_that_keras_would_hand_on_to_jax_is_a_tensor():
    text = """graph Fill(%x: f32[batch, 4]) {
  param @empty: f32[1, 4]
  %is_empty: bool[batch, 4] = ops.less(%x, x2=0.0)
  %y: f32[batch, 4] = ops.where(%is_empty, @empty, %x)
  %z: f32[batch, 4] = ops.add(%y, @empty)
  return %z
}

graph Model(%x: f32[batch, 4]) {
  %z: f32[batch, 4] = call(%x, graph="Fill", path="fill", name="fill")
  return %z
}

entry Model returns "z"
"""
    body = sources(text)
    assert ", ops.convert_to_tensor(self.empty), x)" in body and "+ self.empty" in body


def sources(text: str) -> str:
    """All that is printed for a program of one input."""
    inputs = {"x": ("features", "float32")}
    plan = dataclasses.replace(
        llama(), program=parse_program(text), fields=(), tiny={}, inputs=inputs, outputs=("z",), package="small"
    )
    return "".join(write_package(plan).values())


def test_what_is_float32_for_good_has_the_dtype_of_what_it_meets_in_a_body_without_a_policy():
    """FlauBERT multiplies hidden states by its mask: under mixed_bfloat16 the product is bfloat16."""
    text = """graph Model(%x: f32[batch, 4]) {
  param @scale: f32[4]
  %norm: f32[batch, 4] = layers.RMSNormalization(%x, @scale, epsilon=1e-06, name="norm")
  %is_small: bool[batch, 4] = ops.less(%x, x2=0.0)
  %mask: f32[batch, 4] = ops.cast(%is_small, dtype="float32")
  %z: f32[batch, 4] = ops.multiply(%norm, %mask)
  %y: f32[batch, 4] = ops.add(%z, %norm)
  return %y
}

entry Model returns "z"
"""
    cast = r"norm \* ops\.cast\(\s*ops\.cast\(feature_input < 0\.0, \"float32\"\), norm\.dtype"
    assert re.search(cast, sources(text))


def test_no_two_classes_share_a_file():
    names = ("Conv1d", "MimiConv1d", "MimiAttention")
    modules = [module_name("mimi", "Mimi", name, names) for name in names]
    assert modules == ["mimi_conv1d", "mimi_mimi_conv1d", "mimi_attention"]


@pytest.mark.parametrize("key", [("slice", None, 2, None), (("slice", None, 2, None),)])
def test_a_functional_model_slices_by_a_tuple(key):
    """Keras's symbolic tensors take no slice that stands alone."""
    import keras

    scope = SimpleNamespace(value=str, owner="self.")
    assert _key(key, scope) == ":2"
    scope.owner = ""
    assert eval(f"x[{_key(key, scope)}]", {"x": keras.KerasTensor((3, 4))}).shape == (2, 4)
    assert _key(1, scope) == "1" and _key(("newaxis", ("slice", 1, None)), scope) == "None, 1:"
