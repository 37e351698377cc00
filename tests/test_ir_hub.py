"""The definitions of the idioms, against transformers' own functions and torch."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import pytest
import torch
from transformers import LlamaConfig
from transformers.masking_utils import sliding_window_overlay
from transformers.models.gptj.modeling_gptj import rotate_every_two
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding, apply_rotary_pos_emb

from hf2khc.ir import hub
from hf2khc.ir.float64 import float64

GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=GENERATOR)


def call(function, *args, **kwargs):
    with float64():
        return function(*args, **kwargs)


def close(a, b):
    assert a.shape == b.shape and float((a - b).abs().max()) < 1e-14


def test_rms_norm():
    norm = LlamaRMSNorm(8, eps=1e-3).double()
    norm.weight.data, x = normal(8), normal(2, 3, 8)
    # transformers computes the statistics in float32
    expected = norm.weight * (x * (x.square().mean(-1, keepdim=True) + 1e-3).rsqrt())
    close(call(hub.rms_norm, x, norm.weight, 1e-3), expected)
    assert float((norm(x) - expected).abs().max()) < 1e-5


def test_rms_norm_computes_in_float32_where_x_is_narrow():
    x = normal(2, 3, 8).to(torch.bfloat16)
    assert hub.rms_norm(x, torch.ones(8), 1e-6).dtype == torch.bfloat16


def test_rotary_embedding_half():
    cos, sin = LlamaRotaryEmbedding(LlamaConfig(hidden_size=16, num_attention_heads=2))(
        normal(1), torch.arange(5)[None]
    )  # fmt: skip
    cos, sin = cos.double(), sin.double()
    q, k = normal(2, 2, 5, 8), normal(2, 1, 5, 8)
    for x, expected in zip((q, k), apply_rotary_pos_emb(q, k, cos, sin), strict=True):
        close(call(hub.rotary_embedding, x.transpose(1, 2), cos, sin), expected.transpose(1, 2))


def test_rotary_embedding_interleaved():
    x, angle = normal(2, 5, 3, 8), normal(2, 5, 4).repeat_interleave(2, -1)
    cos, sin = angle.cos(), angle.sin()
    expected = x * cos[:, :, None] + rotate_every_two(x) * sin[:, :, None]
    close(call(hub.rotary_embedding, x, cos, sin, interleaved=True), expected)


def test_rotary_embedding_of_the_first_entries():
    x, angle = normal(2, 5, 3, 8), normal(1, 5, 2).repeat(1, 1, 2)
    found = call(hub.rotary_embedding, x, angle.cos(), angle.sin())
    close(found[..., :4], call(hub.rotary_embedding, x[..., :4], angle.cos(), angle.sin()))
    close(found[..., 4:], x[..., 4:])


@pytest.mark.parametrize("window", [None, 1, 3])
def test_causal_mask(window):
    positions = torch.arange(5)

    def seen(q, k):
        near = window is None or bool(sliding_window_overlay(window)(0, 0, q, k))
        return near and k <= q

    expected = torch.tensor([[[[seen(q, k) for k in range(5)] for q in range(5)]]])
    query, key = positions[None, None, :, None], positions[None, None, None, :]
    found = call(hub.causal_mask, query, key, window=window)
    assert found.dtype == torch.bool and torch.equal(found, expected)
    late = call(hub.causal_mask, query[:, :, 3:], key, window=window)
    assert torch.equal(late, expected[:, :, 3:]), "queries that begin later see the same keys"
