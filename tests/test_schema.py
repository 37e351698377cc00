"""The convention for torch ops: a call flattened and rebuilt is the same call."""

import pytest
import torch

from hf2khc.capture.schema import flatten_call, rebuild_call
from hf2khc.diagnostics import ConversionError
from hf2khc.ir.expr import Expr

aten = torch.ops.aten


class Ref:
    """A stand-in for a tensor."""

    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return self.name


X, Y, Z, W = map(Ref, "xyzw")

CASES = [
    (aten.add.Tensor, (X, Y), {}, (X, Y), {}),
    (aten.add.Tensor, (X, Y), {"alpha": 2}, (X, Y), {"alpha": 2}),
    (aten.add.Tensor, (X, 1), {}, (X,), {"other": 1}),
    (aten.add.Scalar, (X, 1.5), {}, (X,), {"other": 1.5}),
    (aten.sub.Tensor, (1, X), {}, (X,), {"self": 1}),
    (aten.pow.Tensor_Scalar, (X, 3), {}, (X,), {"exponent": 3}),
    (aten.pow.Scalar, (10000.0, X), {}, (X,), {"self": 10000.0}),
    (aten.where.self, (X, Y, Z), {}, (X, Y, Z), {}),
    (aten.where.ScalarOther, (X, Y, 0.0), {}, (X, Y), {"other": 0.0}),
    (aten.where.ScalarSelf, (X, 0.0, Y), {}, (X, Y), {"self": 0.0}),
    (aten.softmax.int, (X, -1, torch.float32), {}, (X,), {"dim": -1, "dtype": "float32"}),
    (aten.softmax.int, (X, -1), {}, (X,), {"dim": -1}),
    (aten.to.dtype, (X, torch.bool), {}, (X,), {"dtype": "bool"}),
    (aten.to.dtype, (X, torch.float32, False, False, None), {}, (X,), {"dtype": "float32"}),
    (aten.layer_norm.default, (X, [4], Y, Z, 1e-5), {}, (X, Y, Z), {"normalized_shape": (4,)}),
    (aten.layer_norm.default, (X, [4], None, Z, 1e-6), {}, (X, None, Z), {"normalized_shape": (4,), "eps": 1e-6}),
    (aten.layer_norm.default, (X, [4], None, None), {}, (X,), {"normalized_shape": (4,)}),
    (aten.linear.default, (X, Y), {}, (X, Y), {}),
    (aten.linear.default, (X, Y, Z), {}, (X, Y, Z), {}),
    (aten.cat.default, ([X, Y, Z], -1), {}, (X, Y, Z), {"dim": -1}),
    (aten.cat.default, ([X, Y],), {}, (X, Y), {}),
    (aten.stack.default, ([X, Y], 1), {}, (X, Y), {"dim": 1}),
    (aten.einsum.default, ("ij,jk->ik", [X, Y]), {}, (X, Y), {"equation": "ij,jk->ik"}),
    (aten.index.Tensor, (X, [None, Y]), {}, (X, None, Y), {}),
    (aten.index.Tensor, (X, [Y, None]), {}, (X, Y), {}),
    (aten.index_put.default, (X, [None, Y], Z), {}, (X, None, Y, Z), {}),
    (aten.index_put.default, (X, [Y], Z, True), {}, (X, Y, Z), {"accumulate": True}),
    (aten.slice.Tensor, (X, 1, 0, 9223372036854775807), {}, (X,), {"dim": 1, "start": 0, "end": 9223372036854775807}),
    (aten.select.int, (X, 1, 0), {}, (X,), {"dim": 1, "index": 0}),
    (aten.sum.dim_IntList, (X, [1]), {}, (X,), {"dim": (1,)}),
    (aten.sum.default, (X,), {}, (X,), {}),
    (aten.mean.dim, (X, [-1], True), {}, (X,), {"dim": (-1,), "keepdim": True}),
    (aten.max.dim, (X, -1), {}, (X,), {"dim": -1}),
    (aten.max.other, (X, Y), {}, (X, Y), {}),
    (aten.view.default, (X, [2, 3]), {}, (X,), {"size": (2, 3)}),
    (aten.view.dtype, (X, torch.int32), {}, (X,), {"dtype": "int32"}),
    (aten.arange.default, (5,), {"device": torch.device("cpu"), "pin_memory": False}, (), {"end": 5}),
    (aten.arange.start, (1, 5), {"dtype": torch.int64}, (), {"start": 1, "end": 5, "dtype": "int64"}),
    (aten.arange.start_step, (0, 8, 2), {"dtype": torch.float32}, (), {"start": 0, "end": 8, "step": 2,
                                                                      "dtype": "float32"}),
    (aten.full.default, ([2, 3], float("-inf")), {"dtype": torch.float32}, (), {"size": (2, 3),
                                                              "fill_value": float("-inf"), "dtype": "float32"}),
    (aten.split.Tensor, (X, 4, -1), {}, (X,), {"split_size": 4, "dim": -1}),
    (aten.split_with_sizes.default, (X, [4, 4], -1), {}, (X,), {"split_sizes": (4, 4), "dim": -1}),
    (aten.conv2d.default, (X, Y, Z, [16, 16]), {}, (X, Y, Z), {"stride": (16, 16)}),
    (aten.conv2d.padding, (X, Y, None, [1, 1], "same"), {}, (X, Y), {"padding": "same"}),
    (aten.scaled_dot_product_attention.default, (X, Y, Z, W), {"scale": 0.125, "enable_gqa": True}, (X, Y, Z, W),
     {"scale": 0.125, "enable_gqa": True}),
    (aten.scaled_dot_product_attention.default, (X, Y, Z, None, 0.0, True), {}, (X, Y, Z), {"is_causal": True}),
    (aten.lstm.input, (X, [Y, Z], [W, W, W, W], True, 1, 0.0, False, False, True), {}, (X, Y, Z, W, W, W, W),
     {"has_biases": True, "num_layers": 1, "dropout": 0.0, "train": False, "bidirectional": False,
      "batch_first": True, "lists": (2, 4)}),
    (aten.new_zeros.default, (X, [3]), {}, (X,), {"size": (3,)}),
    (aten.masked_fill.Scalar, (X, Y, 0.0), {}, (X, Y), {"value": 0.0}),
    (aten.masked_fill.Tensor, (X, Y, Z), {}, (X, Y, Z), {}),
    (aten.clamp.default, (X, 0.0), {}, (X,), {"min": 0.0}),
    (aten.clamp.default, (X, None, 1.0), {}, (X,), {"max": 1.0}),
    (aten.embedding.default, (X, Y, 0), {}, (X, Y), {"padding_idx": 0}),
    (aten.upsample_bilinear2d.vec, (X, [4, 4], False, None), {}, (X,), {"output_size": (4, 4),
                                                         "align_corners": False, "scale_factors": None}),
]  # fmt: skip


@pytest.mark.parametrize("overload, args, kwargs, operands, attrs", CASES, ids=lambda v: getattr(v, "__name__", ""))
def test_flatten(overload, args, kwargs, operands, attrs):
    assert flatten_call(overload, args, kwargs) == (operands, attrs)


@pytest.mark.parametrize("overload, args, kwargs, operands, attrs", CASES, ids=lambda v: getattr(v, "__name__", ""))
def test_rebuild_is_inverse(overload, args, kwargs, operands, attrs):
    name = str(overload).rsplit(".", 1)[0]
    rebuilt, *call = rebuild_call(name, operands, attrs)
    assert flatten_call(rebuilt, *call) == (operands, attrs)


def test_overload_follows_the_arguments():
    def chosen(name, operands, **attrs):
        return str(rebuild_call(name, operands, attrs)[0])

    assert chosen("aten.pow", (X, Y)) == "aten.pow.Tensor_Tensor"
    assert chosen("aten.pow", (X,), exponent=2) == "aten.pow.Tensor_Scalar"
    assert chosen("aten.pow", (X,), self=2) == "aten.pow.Scalar"
    assert chosen("aten.mean", (X,)) == "aten.mean.default"
    assert chosen("aten.max", (X,), dim=1) == "aten.max.dim"
    assert chosen("aten.view", (X,), size=(2, 3)) == "aten.view.default"


def test_symbolic_sizes_stay_expressions():
    assert flatten_call(aten.view.default, (X, [Expr("batch"), -1]), {}) == ((X,), {"size": (Expr("batch"), -1)})
    assert flatten_call(aten.add.Tensor, (X, Expr("seq")), {}) == ((X,), {"other": Expr("seq")})


def test_unknown_calls_are_refused():
    with pytest.raises(ConversionError, match="no operator"):
        rebuild_call("aten.no_such_op", (X,), {})
    with pytest.raises(ConversionError, match="no overload"):
        rebuild_call("aten.add", (X,), {"colour": 1})
    with pytest.raises(ConversionError, match="no value for"):
        flatten_call(aten.add.Scalar, (X, 1j), {})
