"""The float64 reference: no step in float32, whatever the model's code asks for."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from hf2khc.capture.inputs import input_spec, sample_inputs  # noqa: E402
from hf2khc.check.precision import at_least_float64  # noqa: E402
from hf2khc.check.reference import _configs, load_model, outputs, outputs_float64, widen  # noqa: E402
from hf2khc.diagnostics import ConversionError  # noqa: E402


class NoFloat32(TorchDispatchMode):
    """Fails on every aten call whose result is float32."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in torch.utils._pytree.tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.dtype in (torch.float32, torch.bfloat16, torch.float16):
                raise AssertionError(f"{func} gives {leaf.dtype}")
        return result


def noisy(config):
    torch.manual_seed(0)
    model = getattr(transformers, config.architectures[0])(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    for item in _configs(model.config):
        item.use_cache = False
    return model


SMALL = {"hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 24, "vocab_size": 40}
LLAMA = {**SMALL, "num_key_value_heads": 2}
CONFIGS = {
    "llama": ("LlamaConfig", "LlamaModel", LLAMA),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", {**LLAMA, "head_dim": 8}),
    "qwen3": ("Qwen3Config", "Qwen3Model", {**LLAMA, "head_dim": 8}),
    "bert": ("BertConfig", "BertModel", SMALL),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", {"n_embd": 16, "n_head": 2, "n_layer": 2, "vocab_size": 40}),
    "mixture": ("MixtralConfig", "MixtralModel", {**LLAMA, "num_local_experts": 4}),
    "yarn": ("LlamaConfig", "LlamaModel", {**LLAMA, "rope_parameters": {
        "rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 64}}),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_no_float32_appears(name):
    config_class, model_class, fields = CONFIGS[name]
    model = noisy(getattr(transformers, config_class)(**fields, architectures=[model_class]))
    inputs = {"input_ids": np.arange(10).reshape(2, 5), "attention_mask": np.array([[1] * 5, [1, 1, 1, 0, 0]])}
    with torch.no_grad():
        single = model(**{k: torch.from_numpy(v) for k, v in inputs.items()})[0].numpy()
    widen(model)
    with NoFloat32():
        found = outputs_float64(model, inputs)
    first = next(iter(found.values()))
    assert first.dtype == np.float64
    assert 1e-9 < np.abs(first - single)[0].max() / np.abs(first).max() < 1e-5
    assert torch.get_default_dtype() == torch.float32


def llama_by_hand(model, ids):
    """A Llama in numpy float64, from the equations; unpadded."""
    p = {name: value.detach().double().numpy() for name, value in model.named_parameters()}
    c = model.config
    h, kv, d = c.num_attention_heads, c.num_key_value_heads, c.hidden_size // c.num_attention_heads
    b, s = ids.shape

    def norm(x, w):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + c.rms_norm_eps) * w

    angle = np.arange(s)[:, None] * model.rotary_emb.inv_freq.double().numpy()
    cos, sin = np.cos(np.tile(angle, 2)), np.sin(np.tile(angle, 2))

    def rotate(x):
        return x * cos + np.concatenate([-x[..., d // 2 :], x[..., : d // 2]], -1) * sin

    x = p["embed_tokens.weight"][ids]
    for i in range(c.num_hidden_layers):
        w = {k.split(f"layers.{i}.")[1]: v for k, v in p.items() if f"layers.{i}." in k}
        y = norm(x, w["input_layernorm.weight"])
        q, k, v = (y @ w[f"self_attn.{n}_proj.weight"].T for n in "qkv")
        q = rotate(q.reshape(b, s, h, d).swapaxes(1, 2))
        k = rotate(k.reshape(b, s, kv, d).swapaxes(1, 2)).repeat(h // kv, 1)
        v = v.reshape(b, s, kv, d).swapaxes(1, 2).repeat(h // kv, 1)
        scores = np.where(np.tril(np.ones((s, s), bool)), q @ k.swapaxes(-1, -2) / np.sqrt(d), -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        y = (weights / weights.sum(-1, keepdims=True) @ v).swapaxes(1, 2).reshape(b, s, h * d)
        x = x + y @ w["self_attn.o_proj.weight"].T
        y = norm(x, w["post_attention_layernorm.weight"])
        gate = y @ w["mlp.gate_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ w["mlp.up_proj.weight"].T)) @ w["mlp.down_proj.weight"].T
    return norm(x, p["norm.weight"])


def test_llama_equals_an_independent_float64_evaluation():
    model = noisy(transformers.LlamaConfig(**LLAMA, architectures=["LlamaModel"]))
    ids = np.arange(14).reshape(2, 7)
    expected = llama_by_hand(model, ids)
    widen(model)
    found = outputs_float64(model, {"input_ids": ids})["last_hidden_state"]
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-13
    with torch.no_grad():  # without the modes the casts of norms and rotary tables show
        plain = model(torch.from_numpy(ids)).last_hidden_state.numpy()
    assert np.abs(plain - expected).max() / np.abs(expected).max() > 1e-9


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.float() / 3,
        lambda x: x.to(torch.float32) / 3,
        lambda x: x.type(torch.float32) / 3,
        lambda x: x.to(dtype=torch.float32, device="cpu") / 3,
        lambda x: torch.softmax(x, -1, dtype=torch.float32),
        lambda x: torch.nn.functional.softmax(x, dim=-1, dtype=torch.float32).to(x.dtype),
        lambda x: torch.tensor(0.1, dtype=torch.float32) + x,
        lambda x: torch.arange(3).float() / 3 + x,
        lambda x: torch.arange(3, dtype=torch.float32) / 3 + x,
        lambda x: torch.full((3,), 0.1, dtype=torch.float32) + x,
        lambda x: torch.zeros(3) + 0.1 + x,
        lambda x: torch.linspace(0, 1, 3) / 3 + x,
        lambda x: x.sum(dtype=torch.float32) / 3,
        lambda x: torch.view_as_real(torch.polar(torch.ones_like(x), x).to(torch.complex64)).flatten(),
        lambda x: torch.outer(torch.arange(3).float(), 1.0 / 3 ** (torch.arange(0, 4, 2).float() / 4)).cos(),
    ],
)
def test_every_way_to_ask_for_float32(function):
    x = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    with at_least_float64():
        found = function(x)
    assert found.dtype == torch.float64
    assert not torch.equal(found, found.to(torch.float32).to(torch.float64))


def test_constants_in_float32_enter_with_their_values():
    constant = torch.tensor([0.1, 0.7])
    with at_least_float64():
        found = constant * torch.tensor([1.0, 3.0])
    assert torch.equal(found, constant.double() * torch.tensor([1.0, 3.0], dtype=torch.float64))


def test_weights_that_the_checkpoint_lacks_are_an_error(tmp_path):
    config = transformers.GPT2Config(**CONFIGS["gpt2"][2], architectures=["GPT2LMHeadModel"])
    noisy(config).save_pretrained(tmp_path)
    source = {"module": "transformers", "qualname": "GPT2LMHeadModel", "path": str(tmp_path), "options": {}}
    assert not load_model({**source, "python_path": ()}).training  # a tied head is not lacking
    with pytest.raises(ConversionError, match="score.weight"):
        load_model({**source, "qualname": "GPT2ForSequenceClassification", "python_path": ()})


def test_weights_are_as_they_are_stored_where_transformers_changes_them(tmp_path):
    sizes = {"vocab_size": 13, "d_model": 8, "n_head": 2, "d_head": 4, "d_inner": 8, "block_sizes": [1, 1, 1]}
    config = transformers.FunnelConfig(**sizes, pad_token_id=0)
    model = transformers.FunnelModel(config)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[0] = 0.5
    model.save_pretrained(tmp_path)
    changed = transformers.FunnelModel.from_pretrained(tmp_path).embeddings.word_embeddings.weight[0]
    assert not changed.any(), "transformers leaves the row for padding alone now: nothing needs to be restored"
    source = {"module": "transformers", "qualname": "FunnelModel", "path": str(tmp_path), "options": {}}
    restored = []
    loaded = load_model({**source, "python_path": ()}, restored).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())
    assert restored == ["embeddings.word_embeddings.weight"]


def test_a_write_into_a_float32_tensor_is_refused():
    constant = torch.zeros(2)
    with pytest.raises(ConversionError, match="float64-reference"), at_least_float64():
        constant.add_(torch.ones(2))


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_query_without_keys_gets_the_mean_as_in_eager_attention(side):
    config = transformers.LlamaConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, vocab_size=40
    )
    torch.manual_seed(0)
    model = transformers.LlamaModel(config).eval()
    spec = input_spec(model)
    inputs = sample_inputs(spec, {"batch": 3, "seq": 6}, padding=side)
    found = outputs(model, inputs)["last_hidden_state"]
    alone = model(**{name: torch.from_numpy(array) for name, array in inputs.items()}).last_hidden_state
    model.set_attn_implementation("eager")
    np.testing.assert_allclose(found, outputs(model, inputs)["last_hidden_state"], atol=1e-5)
    # It takes the mode for that, where a row is empty.
    assert np.allclose(found, alone.detach().numpy(), atol=1e-5) == (side == "right")


class Holding(transformers.PreTrainedModel):
    """A model that has no experts itself."""

    config_class = transformers.MixtralConfig

    def __init__(self, config):
        super().__init__(config)
        self.inner = transformers.MixtralModel(transformers.MixtralConfig(**config.to_dict()))
        self.post_init()

    def forward(self, input_ids):
        return self.inner(input_ids).last_hidden_state


def test_experts_of_an_inner_model_are_widened():
    config = transformers.MixtralConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, intermediate_size=8,
        vocab_size=12, num_local_experts=2,
    )  # fmt: skip
    model = Holding(config).eval()
    tokens = torch.arange(6)[None]
    with torch.no_grad():
        narrow = model(tokens)
        widen(model)
        with at_least_float64():
            wide = model(tokens)
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide, narrow.double(), rtol=1e-4, atol=1e-5)
