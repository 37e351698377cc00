"""The definitions of the idioms, against transformers' own functions and torch."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.masking_utils import sliding_window_bidirectional_overlay, sliding_window_overlay
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


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 1, 3])
def test_attention_mask(causal, window):
    padding = torch.tensor([[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]])
    overlay = sliding_window_overlay if causal else sliding_window_bidirectional_overlay

    def seen(batch, q, k):
        near = window is None or bool(overlay(window)(batch, 0, q, k))
        return bool(padding[batch, k]) and near and (k <= q or not causal)

    expected = torch.tensor([[[[seen(b, q, k) for k in range(5)] for q in range(5)]] for b in range(2)])
    found = call(hub.attention_mask, padding, causal=causal, window=window)
    assert found.dtype == torch.bool and torch.equal(found, expected)
    ones = call(hub.attention_mask, like=normal(2, 5, 7), causal=causal, window=window)
    all_tokens = call(hub.attention_mask, torch.ones_like(padding), causal=causal, window=window)
    assert ones.shape == (1, 1, 5, 5) and torch.equal(ones.expand_as(all_tokens), all_tokens)


def reference(q, k, v, **options):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True, **options).transpose(1, 2)


def test_attention_groups_heads_and_masks():
    q, k, v = normal(2, 5, 4, 8), normal(2, 5, 2, 8), normal(2, 5, 2, 8)
    close(call(hub.attention, q, k, v), reference(q, k, v))
    close(call(hub.attention, q, k, v, scale=0.3), reference(q, k, v, scale=0.3))
    mask = call(hub.attention_mask, like=q, causal=True)
    close(call(hub.attention, q, k, v, mask), reference(q, k, v, is_causal=True))
    bias = normal(1, 4, 5, 5)
    close(call(hub.attention, q, k, v, bias), reference(q, k, v, attn_mask=bias))


def test_attention_soft_cap_comes_before_the_mask():
    q, k, v = normal(2, 5, 2, 8), normal(2, 5, 2, 8), normal(2, 5, 2, 8)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * 0.5
    scores = (torch.tanh(scores / 2.0) * 2.0).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    expected = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)
    mask = call(hub.attention_mask, like=q, causal=True)
    close(call(hub.attention, q, k, v, mask, scale=0.5, soft_cap=2.0), expected)


def test_a_query_that_sees_no_key_gets_the_mean():
    q, k, v = normal(1, 3, 2, 4), normal(1, 3, 2, 4), normal(1, 3, 2, 4)
    found = call(hub.attention, q, k, v, torch.zeros(1, 1, 3, 3, dtype=torch.bool))
    close(found, v.mean(1, keepdim=True).expand_as(found))


def test_attention_with_a_value_of_another_size():
    q, k, v = normal(1, 3, 2, 4), normal(1, 6, 2, 4), normal(1, 6, 2, 5)
    assert np.shape(call(hub.attention, q, k, v)) == (1, 3, 2, 5)
