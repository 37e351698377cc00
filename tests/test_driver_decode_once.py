"""Of a model with an encoder the cached step is the decoder's; what depends on the encoder alone is computed once."""

import pytest

from hf2khc.driver.decode import derive_decoding
from hf2khc.driver.decode_positions import NoCache
from hf2khc.ir.text import format_graph, parse_program
from hf2khc.write.plan import UPDATE

ENCODER_DECODER = """
graph Encoder(%x: f32[batch, seq, 8]) {
  %y: f32[batch, seq, 8] = ops.cumsum(%x, axis=1)
  return %y
}

graph Positions(%ids: i64[batch, decoder_seq]) {
  %keys_1: f32[decoder_seq] = ops.arange(start=0, stop=decoder_seq, step=1, dtype="float32")
  %queries: f32[decoder_seq, 1] = ops.expand_dims(%keys_1, axis=1)
  %bias: f32[decoder_seq, decoder_seq] = ops.subtract(%keys_1, %queries)
  return %bias
}

graph Decoder(%x: f32[batch, n, 8], %bias: f32[n, n], %memory: f32[batch, m, 8]) {
  %key: f32[batch, n, 8] = ops.exp(%x)
  %scores: f32[batch, n, n] = ops.einsum(%x, %key, subscripts="bqd,bkd->bqk")
  %biased: f32[batch, n, n] = ops.add(%scores, %bias)
  %negative: f32[batch, n, 8] = ops.negative(%x)
  %own: f32[batch, n, 8] = ops.einsum(%biased, %negative, subscripts="bqk,bkd->bqd")
  %cross: f32[batch, n, m] = ops.einsum(%own, %memory, subscripts="bqd,bkd->bqk")
  %y: f32[batch, n, 8] = ops.einsum(%cross, %memory, subscripts="bqk,bkd->bqd")
  return %y
}

graph Model(%input_ids: i64[batch, seq], %ids: i64[batch, decoder_seq], %mask: i64[batch, decoder_seq]) {
  param @embed.weight: f32[9, 8]
  %a: f32[batch, seq, 8] = layers.Embedding(%input_ids, @embed.weight, input_dim=9, output_dim=8, name="embed")
  %memory: f32[batch, seq, 8] = call(%a, graph="Encoder", path="encoder")
  %x: f32[batch, decoder_seq, 8] = layers.Embedding(%ids, @embed.weight, input_dim=9, output_dim=8, name="embed")
  %bias: f32[decoder_seq, decoder_seq] = call(%ids, graph="Positions", path="")
  %y: f32[batch, decoder_seq, 8] = call(%x, %bias, %memory, graph="Decoder", path="decoder")
  return %y
}

entry Model
"""


def test_an_encoder_runs_once_and_what_it_gives_is_not_cached() -> None:
    program, decoding = derive_decoding(parse_program(ENCODER_DECODER), ["mask"], {})
    assert decoding.encoded == "memory" and decoding.layers == ("y",)
    assert decoding.cached == {"Decoder", "Model"}
    assert program.graphs["Decoder"].of(UPDATE)[0].attrs["rows"] == ((8,), (8,))
    # It mixes positions, but not those of the decoder.
    assert format_graph(program.graphs["Encoder"]) == format_graph(parse_program(ENCODER_DECODER).graphs["Encoder"])
    decoder = format_graph(program.graphs["Decoder"])
    assert "%bias: f32[n, keys], %memory: f32[batch, m, 8]" in decoder


PROJECTED = ENCODER_DECODER.replace(
    "%memory: f32[batch, m, 8]) {\n",
    """%memory: f32[batch, m, 8]) {
  param @key.weight: f32[8, 4]
  %small: f32[batch, m, 4] = layers.Dense(%memory, @key.weight, units=4, use_bias=false, name="key")
  %twice: f32[batch, m, 8] = ops.repeat(%small, repeats=2, axis=2)
""",
).replace('ops.einsum(%own, %memory, ', 'ops.einsum(%own, %twice, ')  # fmt: skip


def test_what_a_layer_computes_of_the_encoder_alone_is_computed_once() -> None:
    program, decoding = derive_decoding(parse_program(PROJECTED), ["mask"], {})
    assert decoding.once == {"Decoder": ("memory",)}
    decoder = program.graphs["Decoder"]
    (mark,) = decoder.of("hub.computed_once")
    # Before it is repeated.
    assert mark.operands == ("small",) and decoder["twice"].operands == ("small_kept",)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # Beside `call` nobody casts a weight, or knows whether the model is trained.
        ("  %twice: f32[batch, m, 8] = ops.repeat(%small, repeats=2, axis=2)",
         "  %twice: f32[batch, m, 8] = ops.matmul(%small, @wide)"),
        ("  %twice: f32[batch, m, 8] = ops.repeat(%small, repeats=2, axis=2)",
         "  %some: f32[batch, m, 4] = layers.Dropout(%small, rate=0.1)\n"
         "  %twice: f32[batch, m, 8] = ops.repeat(%some, repeats=2, axis=2)"),
    ],
)  # fmt: skip
def test_what_is_not_computed_once(old: str, new: str) -> None:
    assert old in PROJECTED
    text = PROJECTED.replace(old, new).replace("f32[8, 4]\n", "f32[8, 4]\n  param @wide: f32[4, 8]\n")
    program, decoding = derive_decoding(parse_program(text), ["mask"], {})
    assert decoding.once == {} and not program.graphs["Decoder"].of("hub.computed_once")


def test_a_layer_reads_from_a_mask_how_long_the_sequence_is() -> None:
    program, _ = derive_decoding(parse_program(ENCODER_DECODER), ["mask"], {})
    positions = program.graphs["Positions"]
    assert [str(node.tensor) for node in positions.inputs] == ["i64[batch, decoder_seq]", "i64[batch, keys]"]
    assert program.main["bias"].operands == ("ids", "mask")
    with pytest.raises(NoCache, match="how long the sequence is"):
        derive_decoding(parse_program(ENCODER_DECODER.replace(", %mask: i64[batch, decoder_seq]", "")), [], {})
