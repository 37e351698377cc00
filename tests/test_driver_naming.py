"""Names of constructor arguments."""

import inspect
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from tiny_models import gpt2
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from hf2khc.capture.build import build_meta
from hf2khc.capture.source_lines import source_lines
from hf2khc.capture.truncate import truncate
from hf2khc.driver.naming import _constants, _provenance, small_config
from hf2khc.driver.twin import Twinned
from hf2khc.ir.text import parse_program
from hf2khc.write.plan import CONSTANT, Field

PROGRAM = """graph Table(%x: i64[batch]) {
  const @weights: f32[2]
  %y: f32[batch] = ops.take(@weights, %x, axis=0)
  return %y
}

graph Model(%x: i64[batch]) {
  const @weights: f32[2]
  %y: f32[batch] = call(%x, graph="Table", path="table")
  %z: f32[batch] = ops.take(@weights, %x, axis=0)
  return %y, %z
}

entry Model
constant @weights: f32[2] = (0.0, 1.0)
constant @table.weights: f32[2] = (0.0, 1.0)
"""


def test_a_constant_takes_no_name_of_keras_own():
    """`weights` is a property of every layer: nothing can be assigned to it."""
    names = [name for name, _ in _constants(parse_program(PROGRAM), set()).values()]
    assert sorted(names) == ["constant_weights", "table_weights"]


def test_lines_of_the_repeated_layers() -> None:
    """What is named are the lines at which the class of the layers stands in its file."""
    model = build_meta(gpt2(), GPT2Model)
    found = source_lines(truncate(model))
    assert list(found) == ["GPT2Block"]
    lines, module = found["GPT2Block"].split(" of ")
    first, last = map(int, lines.split("-"))
    text = Path(inspect.getsourcefile(GPT2Block)).read_text().splitlines()
    assert module == GPT2Block.__module__
    assert text[first - 1].startswith("class GPT2Block(") and text[last - 1].startswith("        return")


def test_what_the_docstring_says_about_the_model() -> None:
    """The shape of DialoGPT-medium."""
    config = GPT2Config(n_positions=1024, n_embd=1024, n_layer=24, n_head=16, vocab_size=50257)
    model = build_meta(config, GPT2LMHeadModel)
    source = SimpleNamespace(model="dialogpt", model_class=GPT2LMHeadModel, config=config)
    captured = SimpleNamespace(parameters=model.num_parameters(), stacks=truncate(model))
    said = _provenance(source, captured, {})
    assert said.pop("layers of class GPT2Block").startswith("lines ")
    assert said == {
        "model": "dialogpt", "transformers class": "GPT2LMHeadModel", "num hidden layers": "24",
        "num attention heads": "16", "hidden size": "1024", "vocab size": "50257", "parameters": "354823168",
    }  # fmt: skip


def test_tests_are_at_the_models_own_numbers_where_its_package_does_not_follow_its_config():
    fields = [Field(f"config.{name}", name, value) for name, value in (("width", 768), ("depth", 12), ("kept", 3))]
    fields.append(Field(f"{CONSTANT}table", "table", [1.0, 2.0]))
    twin = parse_program(PROGRAM)
    twin = replace(twin, constants={"table": np.array([0.5])})
    found = Twinned(
        (twin,), fields={"config.width": (768, 32), "config.depth": (12, 3)}, depth={"layers": "config.depth"}
    )
    plan = SimpleNamespace(fields=fields)
    small, large = SimpleNamespace(kept_parameters=10**6), SimpleNamespace(kept_parameters=10**9)
    following = {"config.width": 32, "config.depth": 2, f"{CONSTANT}table": [0.5]}
    assert small_config(plan, small, found, follows=True) == following
    assert small_config(plan, small, found, follows=False) == {"config.width": 768, "config.depth": 2}
    # No test builds the layers of a large model.
    assert small_config(plan, large, found, follows=False) == following
