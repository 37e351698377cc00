"""A model with a head as two classes: the backbone, and the task on top of it."""

import dataclasses
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hf2khc.ir.text import format_program, parse_program
from hf2khc.write.package import write_package
from hf2khc.write.plan import Field, Head
from hf2khc.write.split import backbone_plan, task_fields
from hf2khc.write.weight_paths import weight_paths

sys.path.insert(0, str(Path(__file__).parent))
from write_models.plans import constants, llama

TIED = 'layers.ReversibleEmbedding(%norm, @embed_tokens.weight, input_dim=config.vocab_size, output_dim=config.hidden_size, tie_weights=true, reverse=true, name="token_embedding")'  # noqa: E501


def plan_of(head: str = TIED, package: str = "lm"):
    """Llama with a head over its last hidden state."""
    plan = constants(llama())
    text = format_program(plan.program).replace("return %norm, %logits", "return %logits")
    text = text.replace('returns "last_hidden_state", "logits"', 'returns "logits"')
    assert TIED in text
    text = text.replace(TIED, head)
    if "@lm_head.weight" in head:
        weight = "  param @lm_head.weight: f32[config.hidden_size, config.num_labels]\n"
        text = text.replace("  param @norm.weight", f"{weight}  param @norm.weight")
        text = text.replace("logits: f32[batch, seq, config.vocab_size]", "logits: f32[batch, seq, config.num_labels]")
        labels = Field("config.num_labels", "num_labels", 5, "int. The number of labels.")
        plan = dataclasses.replace(plan, fields=(*plan.fields, labels))
    program = dataclasses.replace(parse_program(text), constants=plan.program.constants)
    backbone = frozenset(node.name for node in program.main if node.level == "layers" or node.op == "loop") - {"logits"}
    head_of_it = Head("CausalLM", "CausalLM", backbone, {"sequence_output": "norm"})
    return dataclasses.replace(plan, package=package, program=program, outputs=("logits",), head=head_of_it)


OWN = 'layers.Dense(%norm, @lm_head.weight, units=config.num_labels, use_bias=false, name="lm_head")'


def test_a_layer_of_the_backbone_is_called_once_more() -> None:
    files = write_package(plan_of())
    task = files["lm_causal_lm.py"]
    assert "class LlamaCausalLM(CausalLM):" in task and "backbone_cls = LlamaBackbone" in task
    assert "logits = backbone.token_embedding(x, reverse=True)" in task and '"num_labels"' not in task
    assert "outputs=sequence_output," in files["lm_backbone.py"] and "logits" not in files["lm_backbone.py"]
    assert "from lm.lm_causal_lm import LlamaCausalLM as LlamaCausalLM" in files["__init__.py"]


def test_the_task_has_arguments_that_the_backbone_lacks() -> None:
    plan = plan_of(OWN)
    assert [field.name for field in task_fields(plan)] == ["num_labels"]
    assert "num_labels" not in {field.name for field in backbone_plan(plan).fields}
    task = write_package(plan)["lm_causal_lm.py"]
    assert "units=num_labels," in task and '"num_labels": self.num_labels,' in task


@pytest.mark.parametrize("head, package", [(TIED, "tied_lm"), (OWN, "own_lm")])
def test_printed_tests_of_a_task_pass(tmp_path: Path, head: str, package: str) -> None:
    plan = plan_of(head, package)
    folder = tmp_path / package
    folder.mkdir()
    for name, text in write_package(plan).items():
        (folder / name).write_text(text)
    env = {**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(tmp_path))
    try:
        module = importlib.import_module(package)
    finally:
        sys.path.remove(str(tmp_path))
    own = {field.name: field.value for field in task_fields(plan)}
    task = module.LlamaCausalLM(module.LlamaBackbone(**{f.name: f.value for f in backbone_plan(plan).fields}), **own)
    assert sorted(row.keras for row in weight_paths(plan)) == sorted(weight.path for weight in task.weights)
