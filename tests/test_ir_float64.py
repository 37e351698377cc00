"""Keras on torch really computes in float64: every operation is swept."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import inspect
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from hf2khc.diagnostics import ConversionError
from hf2khc.ir import hub
from hf2khc.ir.float64 import float64

ops = keras.ops
# Bits beyond float32 in every entry; positive and below one, so that every function is defined.
X = np.random.default_rng(0).uniform(0.1, 0.9, size=(2, 4, 4))
Y = np.random.default_rng(1).uniform(0.1, 0.9, size=(2, 4, 4))
V, W = X[0, 0], Y[0, 0]
MANY = np.array([1, 2, 5])
HEADS = X.reshape(2, 2, 2, 4)
IMAGE = np.random.default_rng(2).uniform(0.1, 0.9, size=(1, 8, 8, 2))

# How to call an operation that is no function of one tensor, or of two of one shape.
CASES = {
    "arange": lambda x: ops.arange(3) * x[0, 0, 0],
    "array": lambda x: ops.array(x),
    "average_pool": lambda x: ops.average_pool(x, 2),
    "bitwise_and": lambda x: ops.bitwise_and(MANY, 1),
    "bitwise_not": lambda x: ops.bitwise_not(MANY),
    "bitwise_or": lambda x: ops.bitwise_or(MANY, 1),
    "bitwise_xor": lambda x: ops.bitwise_xor(MANY, 1),
    "batch_normalization": lambda x: ops.batch_normalization(x, V, W, -1, V, W),
    "broadcast_to": lambda x: ops.broadcast_to(x, (3, 2, 4, 4)),
    "cast": lambda x: ops.cast(x, "float32"),
    "clip": lambda x: ops.clip(x, 0.2, 2.0),
    "concatenate": lambda x: ops.concatenate([x, Y]),
    "conv": lambda x: ops.conv(x, Y[:, :, :3]),
    "convert_to_tensor": lambda x: ops.convert_to_tensor(x, dtype="float32"),
    "cross": lambda x: ops.cross(x[..., :3], Y[..., :3]),
    "cumsum": lambda x: ops.cumsum(x, axis=1),
    "cumprod": lambda x: ops.cumprod(x, axis=1),
    "depthwise_conv": lambda x: ops.depthwise_conv(x, Y[:, :, :1]),
    "dot_product_attention": lambda x: ops.dot_product_attention(ops.reshape(x, HEADS.shape), HEADS, HEADS),
    "einsum": lambda x: ops.einsum("bij,bkj->bik", x, Y),
    "expand_dims": lambda x: ops.expand_dims(x, 1),
    "eye": lambda x: ops.eye(3, dtype="float32") * x[0, 0, 0],
    "fft": lambda x: ops.fft([x, Y]),
    "fft2": lambda x: ops.fft2([x, Y]),
    "flip": lambda x: ops.flip(x, 1),
    "full": lambda x: ops.full((2,), 0.1, dtype="float32") * x[0, 0, 0],
    "full_like": lambda x: ops.full_like(x, 0.1, dtype="float32") * x,
    "get_item": lambda x: ops.get_item(x, (0, slice(1, 3))),
    "ifft2": lambda x: ops.ifft2([x, Y]),
    "inner": lambda x: ops.inner(x[0, 0], W),
    "irfft": lambda x: ops.irfft([x, Y]),
    "kron": lambda x: ops.kron(x[0], Y[0]),
    "layer_normalization": lambda x: ops.layer_normalization(x, V, W, axis=-1),
    "linspace": lambda x: ops.linspace(x[0, 0, 0], 1.0, 5),
    "logical_and": lambda x: ops.logical_and(x > 0.5, Y > 0.5),
    "logical_or": lambda x: ops.logical_or(x > 0.5, Y > 0.5),
    "matmul": lambda x: ops.matmul(x, Y),
    "max_pool": lambda x: ops.max_pool(x, 2),
    "meshgrid": lambda x: ops.meshgrid(x[0, 0], V),
    "moments": lambda x: ops.moments(x, axes=[1]),
    "moveaxis": lambda x: ops.moveaxis(x, 0, 1),
    "norm": lambda x: ops.norm(x, axis=-1),
    "normalize": lambda x: ops.normalize(x),
    "one_hot": lambda x: ops.one_hot([0, 1], 3),
    "ones": lambda x: ops.ones((2,), dtype="float32") * x[0, 0, 0],
    "outer": lambda x: ops.outer(x[0, 0], W),
    "pad": lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 0))),
    "power": lambda x: ops.power(x, 2.5),
    "repeat": lambda x: ops.repeat(x, 2, axis=1),
    "reshape": lambda x: ops.reshape(x, (8, 4)),
    "roll": lambda x: ops.roll(x, 1, axis=1),
    "rms_normalization": lambda x: ops.rms_normalization(x, V),
    "scatter": lambda x: ops.scatter([[0], [1]], x[0, 0, :2], (3,)),
    "scatter_update": lambda x: ops.scatter_update(x, [[0, 0, 0]], V[:1]),
    "separable_conv": lambda x: ops.separable_conv(x, Y[:, :, :1], Y[:1, :, :2]),
    "searchsorted": lambda x: ops.searchsorted(ops.sort(V), x) * x,
    "slice": lambda x: ops.slice(x, (0, 0, 1), (2, 2, 2)),
    "slice_update": lambda x: ops.slice_update(x, (0, 0, 1), Y[:1, :1, :2]),
    "solve_triangular": lambda x: ops.solve_triangular(x, Y, lower=True),
    "split": lambda x: ops.split(x, 2, axis=1),
    "stack": lambda x: ops.stack([x, Y]),
    "swapaxes": lambda x: ops.swapaxes(x, 0, 1),
    "take": lambda x: ops.take(x, np.array([0, 1]), axis=1),
    "take_along_axis": lambda x: ops.take_along_axis(x, np.zeros((2, 1, 4), "int64"), axis=1),
    "tensordot": lambda x: ops.tensordot(x, Y[0], axes=1),
    "threshold": lambda x: ops.threshold(x, 0.5, 0.0),
    "tile": lambda x: ops.tile(x, (1, 2, 1)),
    "top_k": lambda x: ops.top_k(x, 2)[0],
    "transpose": lambda x: ops.transpose(x, (0, 2, 1)),
    "tri": lambda x: ops.tri(3, dtype="float32") * x[0, 0, 0],
    "unfold": lambda x: ops.unfold(ops.transpose(IMAGE, (0, 3, 1, 2)) * x[0, 0, 0], 2),
    "unstack": lambda x: ops.unstack(x, axis=1),
    "vdot": lambda x: ops.vdot(x[0, 0], W),
    "where": lambda x: ops.where(x > 0.5, x, 0.1),
    "zeros": lambda x: ops.zeros((2,), dtype="float32") + x[0, 0, 0],
    "hub.rms_norm": lambda x: hub.rms_norm(x, V, 1e-6),
    "hub.rotary_embedding": lambda x: hub.rotary_embedding(ops.reshape(x, HEADS.shape), X[:, :2], Y[:, :2]),
}
# Operations that float bits do not reach, or do not pass through continuously: their dtype alone is looked at.
STEPS = """all any argmax argmin argsort bincount bitwise_and bitwise_not bitwise_or bitwise_xor ceil count_nonzero
    digitize empty_like equal fix floor floor_divide greater greater_equal heaviside isclose isfinite isin isinf isnan
    less less_equal logical_and logical_not logical_or logical_xor nonzero not_equal one_hot ones_like rint round
    searchsorted shape sign signbit size trunc zeros_like"""
MATH = """abs add arccos arcsin arcsinh arctan arctan2 arctanh average celu cos cosh diagonal divide elu erf erfinv exp
    exp2 expm1 gelu glu hard_sigmoid hard_silu hard_tanh leaky_relu log log10 log1p log2 log_sigmoid log_softmax
    logaddexp logsumexp max maximum mean median min minimum mod multiply negative prod ravel reciprocal relu relu6 rsqrt
    selu sigmoid silu sin sinh soft_shrink softmax softplus softsign sort sqrt square squareplus squeeze std subtract
    sum swish tan tanh tanh_shrink trace tril triu true_divide var"""
NARROW = {"float32", "float16", "bfloat16", "complex64"}


def used_in_passes():
    """Every `ops.<name>` that a rule or pass mentions."""
    folder = Path(hub.__file__).parents[2] / "passes"
    text = "\n".join(path.read_text() for suffix in ("*.rules", "*.py") for path in folder.rglob(suffix))
    return {name for name in re.findall(r"\bops\.([a-z_0-9]+)", text) if inspect.isfunction(getattr(ops, name, None))}


def call(name, x):
    """The operation on a tensor, as a list of results."""
    case = CASES.get(name)
    function = getattr(ops, name, None)
    if case is None:
        required = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
        case = function if len(required) == 1 else lambda x: function(x, Y)
    result = case(x)
    return list(result) if isinstance(result, list | tuple) else [result]


def sweep():
    return sorted(CASES.keys() | set(MATH.split()) | used_in_passes())


@pytest.mark.parametrize("name", sweep())
def test_no_operation_falls_below_float64(name):
    with float64():
        if name in STEPS.split():
            assert not {keras.backend.standardize_dtype(r.dtype) for r in call(name, ops.array(X))} & NARROW
            return
        # A float32 anywhere inside swallows this step or blows it up to its own rounding.
        near, far = (call(name, ops.array(X + step * Y)) for step in (0.0, 1e-12))
        assert not {keras.backend.standardize_dtype(r.dtype) for r in near} & NARROW
        moved = max(float(ops.max(ops.abs(b - a))) for a, b in zip(near, far, strict=True))
        assert 0 < moved < 1e-9


def test_the_sweep_can_fail():
    """Without the context, operations do fall to float32."""
    for name in ("matmul", "cumsum", "var", "maximum", "tensordot", "dot_product_attention"):
        assert {keras.backend.standardize_dtype(r.dtype) for r in call(name, ops.array(X))} & NARROW


def test_integers_become_float64():
    with float64():
        counts = ops.array([1, 2, 5])
        results = ops.mean(counts), ops.cast(counts, "float32"), ops.sqrt(counts), counts / 3, ops.multiply(counts, 0.1)
        for result in results:
            assert keras.backend.standardize_dtype(result.dtype) == "float64"
        assert keras.backend.standardize_dtype(ops.add(counts, 1).dtype).startswith("int")


def test_layers_compute_in_float64():
    with float64():
        dense = keras.layers.Dense(3, dtype="float32")
        result = dense(ops.array(X))
        assert {keras.backend.standardize_dtype(v.value.dtype) for v in dense.weights} == {"float64"}
        assert keras.backend.standardize_dtype(result.dtype) == "float64" and not result.requires_grad


def test_everything_is_restored_after_nesting_and_errors():
    before = keras.config.floatx(), keras.config.dtype_policy().name, keras.backend.result_type("float64", "float64")
    with pytest.raises(ZeroDivisionError), float64(), float64():
        raise ZeroDivisionError
    assert before == (
        keras.config.floatx(), keras.config.dtype_policy().name, keras.backend.result_type("float64", "float64")
    )  # fmt: skip
    assert keras.backend.standardize_dtype(ops.cast(X, "float32").dtype) == "float32"


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ConversionError, match="Keras runs on jax"), float64():
        pass
