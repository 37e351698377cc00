"""Mixtures of experts: sorted rows become products with all experts, and what does not fit is lowered op by op."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import inspect
import textwrap

import numpy as np
import pytest
import transformers.integrations.moe  # noqa: F401  (registers its operators with torch)

from hf2khc.capture.aten import aten_evaluator
from hf2khc.ir.evaluate import keras_evaluators
from hf2khc.ir.text import parse_program
from hf2khc.ir.validate import validate
from hf2khc.ir.verify import verify
from hf2khc.passes.core.lower_aten import lower_aten
from hf2khc.passes.core.lower_experts import lower_experts

EVALUATORS = {**keras_evaluators(), "aten": aten_evaluator(), "transformers": aten_evaluator()}
TEXT = textwrap.dedent(inspect.getdoc(lower_experts).split("Before:")[1].split("After:")[0]).strip() + "\n"
ACTIVATION = "  %active: f32[batch * 2, 6] = aten.silu(%made)\n"
GATED = (
    "  %split: (f32[batch * 2, 3], f32[batch * 2, 3]) = aten.split(%made, split_size=3, dim=-1)\n"
    "  %gate: f32[batch * 2, 3] = item(%split, index=0)\n  %up: f32[batch * 2, 3] = item(%split, index=1)\n"
    "  %act: f32[batch * 2, 3] = aten.silu(%gate)\n  %hidden: f32[batch * 2, 3] = aten.mul(%act, %up)\n"
    "  %active: f32[batch * 2, 6] = transformers.grouped_mm_fallback(%hidden, @down, %ends)\n"
)
BIASED = (
    "  %bias: f32[batch * 2, 6] = aten.index(@bias, %sorted)\n  %sum: f32[batch * 2, 6] = aten.add(%made, %bias)\n"
    "  %even: f32[batch * 2, 3] = aten.slice(%sum, dim=1, start=0, end=9223372036854775807, step=2)\n"
    "  %odd: f32[batch * 2, 3] = aten.slice(%sum, dim=1, start=1, end=9223372036854775807, step=2)\n"
    "  %low: f32[batch * 2, 3] = aten.clamp(%even, max=0.5)\n  %more: f32[batch * 2, 3] = aten.add(%odd, other=1)\n"
    "  %hidden: f32[batch * 2, 3] = aten.mul(%low, %more)\n"
    "  %active: f32[batch * 2, 6] = transformers.grouped_mm_fallback(%hidden, @down, %ends)\n"
)
# What mixes rows stays sorted.
MIXED = "  %active: f32[batch * 2, 6] = aten.softmax(%made, dim=0)\n"
RANDOM = np.random.default_rng(0)
WEIGHTS = {
    "kernel": RANDOM.normal(size=(4, 8, 6)),
    "down": RANDOM.normal(size=(4, 3, 6)),
    "bias": RANDOM.normal(size=(4, 6)),
}


def program(middle: str):
    params = "".join(
        f"  param @{name}: f32[{shape}]\n"
        for name, shape in (("down", "4, 3, 6"), ("bias", "4, 6"))
        if f"@{name}" in middle
    )
    return parse_program(TEXT.replace("  param @kernel", f"{params}  param @kernel").replace(ACTIVATION, middle))


def inputs(batch: int, ids) -> dict[str, np.ndarray]:
    random = np.random.default_rng(batch)
    return {"x": random.normal(size=(batch, 8)), "ids": ids(random, batch), "weights": random.random((batch, 2))}


ROUTES = {
    "any": lambda random, batch: np.argsort(random.random((batch, 4)))[:, :2],
    "one expert": lambda random, batch: np.full((batch, 2), 2),
    "the first and the last": lambda random, batch: np.tile([3, 0], (batch, 1)),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("batch", [1, 5, 40])
@pytest.mark.parametrize("middle", [ACTIVATION, GATED, BIASED, MIXED], ids=["plain", "gated", "biased", "mixed"])
def test_experts(middle, batch, route):
    before = program(middle)
    dense = lower_experts(before)
    assert any(node.op.startswith("transformers.") for node in dense.main) == (middle == MIXED)
    lowered = lower_aten(before)
    verify(lowered, "ops")
    for after in (dense, lowered):
        validate(before, after, inputs(batch, ROUTES[route]), WEIGHTS.__getitem__, EVALUATORS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("floor_divide(%order, other=2)", "floor_divide(%order, other=3)"),
        ("index_put(%empty, %order, %count)", "index_put(%empty, %sorted, %count)"),
        ("histc(%numbers, bins=4, max=3)", "histc(%numbers, bins=4, max=4)"),
        ("index(%shares, %order)", "index(%shares, %sorted)"),
        ("aten.arange(end=batch * 2)", "aten.arange(start=1, end=batch * 2 + 1)"),
    ],
)
def test_what_is_not_quite_a_mixture_is_left_alone(old, new):
    assert old in TEXT
    before = parse_program(TEXT.replace(old, new))
    assert [node.op for node in lower_experts(before).main] == [node.op for node in before.main]
