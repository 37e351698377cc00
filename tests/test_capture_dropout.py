"""Rates of dropout that a trace for inference does not show."""

import pytest
from tiny_models import bert, gemma2, gpt2, llama, t5
from transformers import BartConfig, BartModel, BertModel, Gemma2Model, GPT2Model, LlamaModel, T5Model

from hf2khc.capture.frontend import capture
from hf2khc.ir.graph import Program

SIZES = {f"{side}_{name}": value for side in ("encoder", "decoder")
         for name, value in {"layers": 2, "attention_heads": 4, "ffn_dim": 52}.items()}  # fmt: skip
BART = BartConfig(
    vocab_size=61,
    d_model=40,
    dropout=0.4,
    attention_dropout=0.3,
    activation_dropout=0.2,
    encoder_layerdrop=0.1,
    **SIZES,
)


def rates(program: Program, op: str, attribute: str) -> set[object]:
    return {node.attrs.get(attribute, 0.0) for graph in program.graphs.values() for node in graph.of(op)}


@pytest.mark.parametrize(
    ("config", "model_class", "attention", "others"),
    [
        (gpt2(attn_pdrop=0.3, resid_pdrop=0.2), GPT2Model, {0.3}, {0.1, 0.2}),
        (bert(attention_probs_dropout_prob=0.3), BertModel, {0.3}, {0.1}),
        (t5(dropout_rate=0.2), T5Model, {0.2}, {0.2}),
        (llama(attention_dropout=0.3), LlamaModel, {0.3}, set()),
        (llama(), LlamaModel, {0.0}, set()),
        # Attention spelt out; layers that are left out at random.
        (gemma2(attention_dropout=0.3), Gemma2Model, set(), {0.3}),
        (BART, BartModel, {0.3}, {0.4, 0.2}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_rates_are_those_of_training(config, model_class, attention, others):
    program = capture(config, model_class).program
    assert rates(program, "aten.scaled_dot_product_attention", "dropout_p") == attention
    assert rates(program, "aten.dropout", "p") == others


class FailsInTraining(LlamaModel):
    def forward(self, *args, **kwargs):
        if self.norm.training:
            raise RuntimeError("no training here\nat all")
        return super().forward(*args, **kwargs)


def test_rates_that_cannot_be_seen_are_noted():
    assert capture(llama(attention_dropout=0.3), LlamaModel).notes == ()
    (note,) = capture(llama(attention_dropout=0.3), FailsInTraining).notes
    assert note.endswith("RuntimeError: no training here") and "rate of dropout" in note
