"""Rules are checked when they are loaded."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

from pathlib import Path

import pytest

import hf2khc.passes
from hf2khc.diagnostics import ConversionError
from hf2khc.rewrite import load_rules, parse_rules

WRONG = [
    ("rule r(x) { match abs(x)  rewrite relu(y) }", "y is not a variable of rule r", "1:40"),
    ("rule r(x, y) { match abs(x)  rewrite relu(y) }", "y is not bound by the pattern", "1:43"),
    ("rule r(x, y) { match abs(x)  rewrite relu(x) }", "variable y of rule r does not occur", "1:1"),
    ("rule r(x) {\n  match ops.absolutely(x)\n  rewrite relu(x) }", "ops.absolutely does not exist in Keras", "2:9"),
    ("rule r(x) { match abs(x)  rewrite ops.softmax(x, dim=-1) }", "ops.softmax has no argument dim", "1:35"),
    ("rule r(x) { match abs(x)  rewrite layers.Dropout(x, p=0.1) }", "layers.Dropout has no argument p", "1:35"),
    ("rule r(x) { match abs(x)  rewrite layers.Dropoff(x) }", "layers.Dropoff does not exist in Keras", "1:35"),
    ("rule r(x) { match abs(x)  rewrite hub.no_such_idiom(x) }", "hub.no_such_idiom is not defined", "1:35"),
    ("rule r(x) { match abs(x)  rewrite relu(x)  where is_nice(x) }", "there is no guard or function is_nice", "1:50"),
    ("rule r(x) { match abs(x)  rewrite ops.softmax(x, axis=rang(x)) }", "there is no guard or function rang", "1:55"),
    ("rule r(x) { match abs(x)  rewrite aten.relu(x) }", "a rewrite never makes an aten op", "1:35"),
    ("rule r(x) { match core.abs(x)  rewrite relu(x) }", "there is no level core", "1:19"),
    ("rule r(x) { match abs(x)  rewrite ops.relu(x, x, x) }", "takes at most 1 operands", "1:35"),
    ("rule r(x) { match abs(x)  rewrite ops.add(x, x, x1=1) }", "is given x1 twice", "1:35"),
    ("rule r(x) { match x  rewrite relu(x) }", "a pattern must be rooted at an op", "1:1"),
    ("rule r(x) { match abs(x)  rewrite x }\nrule r(x) { match sin(x)  rewrite x }", "two rules named r", "2:1"),
    ("rule r(x) { match abs(x) }", "this is not a rule", "1:26"),
    ("rule r(x) { match abs(x,  rewrite relu(x) }", "this is not a rule", "1:"),
]


@pytest.mark.parametrize(("text", "message", "place"), WRONG, ids=[message for _, message, _ in WRONG])
def test_what_is_wrong_is_said_with_its_place(text, message, place):
    with pytest.raises(ConversionError) as raised:
        parse_rules(text, "bad.rules")
    texts = [(d.message, d.location) for d in raised.value.diagnostics]
    assert any(message in m and location.startswith(f"bad.rules:{place}") for m, location in texts), texts


def test_all_errors_are_reported_at_once():
    with pytest.raises(ConversionError) as raised:
        parse_rules("rule a(x) { match foo(x)  rewrite bar(x) }\nrule b(x) { match abs(x)  rewrite relu(x, d=1) }")
    assert len(raised.value.diagnostics) == 3


FILES = sorted(path for folder in hf2khc.passes.__path__ for path in Path(folder).rglob("*.rules"))


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_the_rules_of_the_passes_load(path):
    assert load_rules(path)
