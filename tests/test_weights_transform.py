"""The transform language: values, shapes, inverses, and what it refuses."""

import numpy as np
import pytest

from hf2khc.diagnostics import ConversionError
from hf2khc.weights.invert import invert, is_invertible
from hf2khc.weights.transform import evaluate, is_arithmetic, output_shape

A = np.arange(24, dtype=np.float32).reshape(4, 6) + 1
B = A[::-1] * 2

CASES = [
    ("x", [A], A),
    ("transpose(x)", [A], A.T),
    ("ops.transpose(x, (1, 0))", [A], A.T),
    ("reshape(transpose(x), (6, 2, -1))", [A], A.T.reshape(6, 2, 2)),
    ("slice(x, (1, 2), (2, 3))", [A], A[1:3, 2:5]),
    ("split(x, 3, axis=1)[2]", [A], A[:, 4:]),
    ("split(x, [1, 4], axis=1)[-1]", [A], None),
    ("concatenate([x0, x1], axis=0)", [A, B], np.concatenate([A, B])),
    ("stack((x0, x1), axis=-1)", [A, B], np.stack([A, B], -1)),
    ("x + 1", [A], A + 1),
    ("add(x, 1.0)", [A], A + 1),
    ("x0 * x1 / sqrt(sum(square(x1), axis=(0,), keepdims=True))", [A, B], A * B / np.sqrt((B**2).sum(0)[None])),
    ("mean(x, axis=1)", [A], A.mean(1)),
    ("squeeze(expand_dims(x, 1), axis=1)", [A], A),
    ("flip(x, axis=0)", [A], A[::-1]),
    ("cast(x, 'float16')", [A], A.astype(np.float16)),
    ("take(x, [2, 0], axis=0)", [A], A[[2, 0]]),
    ("-exp(x / 10)", [A], -np.exp(A.astype(np.float64) / 10)),
    ("repeat(x, 2, axis=1)", [A], A.repeat(2, 1)),
    ("broadcast_to(slice(x, (0, 0), (1, 6)), (3, 6))", [A], np.broadcast_to(A[:1], (3, 6))),
    ("max(x)", [A], A.max()),
    ("min(x, axis=1)", [A], A.min(1)),
    ("maximum(sqrt(sum(square(x), axis=1)), 9.0)", [A], np.maximum(np.sqrt((A.astype(np.float64) ** 2).sum(1)), 9.0)),
    ("minimum(abs(-x), 5)", [A], np.minimum(A, 5)),
    ("power(2.0, log(x))", [A], 2.0 ** np.log(A.astype(np.float64))),
    ("tanh(x / 9) - sigmoid(x)", [A], np.tanh(A.astype(np.float64) / 9) - 1 / (1 + np.exp(-A.astype(np.float64)))),
    ("softplus(x)", [A], np.log1p(np.exp(A.astype(np.float64)))),
]


@pytest.mark.parametrize(("transform", "arrays", "expected"), CASES)
def test_values_and_shapes(transform, arrays, expected):
    if expected is None:
        with pytest.raises(ConversionError, match="cannot contain"):
            evaluate(transform, arrays)
        return
    value = evaluate(transform, arrays)
    np.testing.assert_allclose(value, expected, rtol=1e-7)
    assert output_shape(transform, [a.shape for a in arrays]) == value.shape


def test_moves_keep_the_dtype_and_arithmetic_is_float64():
    half = A.astype(np.float16)
    assert evaluate("transpose(x)", [half]).dtype == np.float16
    assert evaluate("x + 1", [half]).dtype == np.float64
    assert is_arithmetic("x + 1") and not is_arithmetic("transpose(x)")


def test_shapes_cost_no_memory():
    assert output_shape("stack([x0, x1])", [(10**6, 10**6)] * 2) == (2, 10**6, 10**6)
    assert output_shape("transpose(reshape(x, (1000, 1000, 1000000)))", [(10**6, 10**6)]) == (10**6, 1000, 1000)


@pytest.mark.parametrize(
    "transform",
    ["__import__('os')", "x.T", "open('f')", "roll(x)", "y", "x[0:2]", "[x for _ in x]", "x if x else x", "x @ x", "("],
)
def test_refuses_everything_else(transform):
    with pytest.raises(ConversionError) as caught:
        evaluate(transform, [A])
    assert caught.value.diagnostics[0].code == "weight-transform"


@pytest.mark.parametrize("transform", ["slice(x, (0, 0), (5, 6))", "reshape(x, (5, 5))", "take(x, [9], axis=0)"])
def test_arguments_that_do_not_fit(transform):
    with pytest.raises(ConversionError, match="does not fit"):
        evaluate(transform, [A])
    with pytest.raises(ConversionError, match="does not fit"):
        output_shape(transform, [A.shape])


@pytest.mark.parametrize(
    ("transform", "count"),
    [
        ("x", 1),
        ("transpose(x)", 1),
        ("transpose(reshape(x, (2, 2, 6)), (1, 2, 0))", 1),
        ("expand_dims(flip(x, axis=1), 0)", 1),
        ("x + 1", 1),
        ("3.0 - x", 1),
        ("multiply(x, 0.5)", 1),
        ("2.0 / x", 1),
        ("-x", 1),
        ("concatenate([transpose(x0), x1 + 1], axis=1)", 2),
        ("stack([x0, x1], axis=1)", 2),
    ],
)
def test_inverse(transform, count):
    sources = [A] if count == 1 else [A, B.T if "transpose(x0)" in transform else B]
    value = evaluate(transform, sources)
    for inverse, source in zip(invert(transform, [s.shape for s in sources]), sources, strict=True):
        np.testing.assert_allclose(evaluate(inverse, [value]), source, rtol=1e-12)


@pytest.mark.parametrize("transform", ["sum(x, axis=0)", "square(x)", "x + x", "x * 0", "slice(x, (0, 0), (1, 6))"])
def test_not_invertible(transform):
    assert not is_invertible(transform, [A.shape])
