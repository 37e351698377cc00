"""Where a base model ends: read off the modules of the trace, never off names of models."""

from types import SimpleNamespace

import pytest

from hf2khc.driver.head import find_head
from hf2khc.ir.text import parse_program

TRACED = """
graph Base(%input_ids: i64[batch, seq]) {
  return %input_ids
}

graph Model(%input_ids: i64[batch, seq]) {
  %y: i64[batch, seq] = call(%input_ids, graph="Base", path="base")
  return %y
}

entry Model
"""
PROGRAM = """
graph Model(%input_ids: i64[batch, seq], %attention_mask: i64[batch, seq]) {
  param @base.embed.weight: f32[9, 4]
  param @head.weight: f32[4, 9]
  %embedded: f32[batch, seq, 4] = layers.Embedding(%input_ids, @base.embed.weight, input_dim=9, output_dim=4)
  %mask: bool[batch, seq] = ops.cast(%attention_mask, dtype="bool")
  %hidden: f32[batch, seq, 4] = ops.relu(%embedded)
  %logits: f32[batch, seq, 9] = layers.Dense(%hidden, @head.weight, units=9, use_bias=false)
  return %logits
}

entry Model returns "logits"
"""
INSIDE = ("embedded", "mask", "hidden")


def located(text: str, inside: tuple[str, ...] = INSIDE):
    """The program with a module path at every node."""
    from dataclasses import replace

    from hf2khc.ir.graph import Loc

    program = parse_program(text)

    def placed(node):
        path = "base.part" if node.name in inside else ""
        return node if node.op in ("input", "param") else replace(node, loc=Loc("m.py", 1, "", path))

    return program.map(lambda graph: graph.replaced([placed(node) for node in graph]))


def head_of(text: str, causal: bool = True, prefix: str = "base", inside: tuple[str, ...] = INSIDE, name="TinyForX"):
    model_class = SimpleNamespace(__name__=name, base_model_prefix=prefix)
    return find_head(model_class, parse_program(TRACED), located(text, inside), causal)  # type: ignore[arg-type]


@pytest.mark.parametrize("causal, task", [(True, "CausalLM"), (False, "MaskedLM")])
def test_a_number_for_every_token_of_the_vocabulary(causal: bool, task: str) -> None:
    head = head_of(PROGRAM, causal)
    assert head is not None and (head.task, head.name) == (task, task)
    assert head.backbone == set(INSIDE) and head.outputs == {"sequence_output": "hidden"}


def test_tokens_of_images_may_be_replaced_before_they_are_embedded() -> None:
    image = "  %image: bool[batch, seq] = ops.equal(%input_ids, x2=8)\n"
    image += "  %ids: i64[batch, seq] = ops.where(%image, _, %input_ids, x1=0)\n"
    masked = PROGRAM.replace("  %embedded", image + "  %embedded")
    head = head_of(masked.replace("Embedding(%input_ids", "Embedding(%ids"), inside=(*INSIDE, "image", "ids"))
    assert head is not None and head.task == "CausalLM"


def test_a_table_may_have_entries_that_are_never_predicted() -> None:
    more = PROGRAM.replace("[9, 4]", "[config.vocab_size + 1, 4]").replace(
        "input_dim=9", "input_dim=config.vocab_size + 1"
    )
    more = more.replace("[4, 9]", "[4, config.vocab_size]").replace("units=9", "units=config.vocab_size")
    more = more.replace("[batch, seq, 9]", "[batch, seq, config.vocab_size]")
    head = head_of(more)
    assert head is not None and head.task == "CausalLM"
    head = head_of(more.replace("[4, config.vocab_size]", "[4, config.labels]").replace("seq, config.vocab_size]",
                   "seq, config.labels]").replace("units=config.vocab_size", "units=config.labels"))  # fmt: skip
    assert head is not None and head.task == "Task"


def test_what_else_a_head_computes() -> None:
    pooled = PROGRAM.replace("f32[batch, seq, 9] = layers.Dense(%hidden", "f32[batch, 9] = layers.Dense(%first")
    pooled = pooled.replace(
        "  %logits", '  %first: f32[batch, 4] = ops.get_item(%hidden, key=("ellipsis", 0))\n  %logits'
    )
    head = head_of(pooled)
    assert head is not None and head.task == "TextClassifier" and head.outputs == {"sequence_output": "hidden"}
    # Three numbers at every position are no vocabulary.
    spans = (
        PROGRAM.replace("[4, 9]", "[4, 3]")
        .replace("units=9", "units=3")
        .replace("f32[batch, seq, 9]", "f32[batch, seq, 3]")
    )
    head = head_of(spans)
    assert head is not None and (head.task, head.name) == ("Task", "X")
    named = head_of(PROGRAM.replace('"logits"', '"scores"'), name="TinyScorer")
    assert named is not None and (named.task, named.name) == ("Task", "TinyScorerTask")


def in_a_layer(text: str) -> str:
    """The program with its token embedding in a layer of the base model."""
    text = text.replace("  param @base.embed.weight: f32[9, 4]\n", "")
    text = text.replace("layers.Embedding(%input_ids, @base.embed.weight, input_dim=9, output_dim=4)",
                        'call(%input_ids, graph="Embeddings", path="base.embeddings")')  # fmt: skip
    layer = """
graph Embeddings(%ids: i64[batch, seq]) {
  param @embed.weight: f32[9, 4]
  %x: f32[batch, seq, 4] = layers.Embedding(%ids, @embed.weight, input_dim=9, output_dim=4)
  return %x
}
"""
    return layer + text


@pytest.mark.parametrize("causal, task", [(True, "CausalLM"), (False, "MaskedLM")])
def test_tokens_may_be_embedded_in_a_layer(causal: bool, task: str) -> None:
    head = head_of(in_a_layer(PROGRAM), causal)
    assert head is not None and head.task == task
    pooled = PROGRAM.replace("f32[batch, seq, 9] = layers.Dense(%hidden", "f32[batch, 9] = layers.Dense(%first")
    pooled = pooled.replace("  %logits", "  %first: f32[batch, 4] = ops.mean(%hidden, axis=1)\n  %logits")
    head = head_of(in_a_layer(pooled), causal)
    assert head is not None and head.task == "TextClassifier"
    # What is told of a text and of something else is no class of the text.
    seen = pooled.replace("%attention_mask: i64[batch, seq]", "%attention_mask: f32[batch, seq]")
    head = head_of(in_a_layer(seen), causal)
    assert head is not None and head.task == "Task"


IMAGES = """
graph Model(%pixel_values: f32[batch, 4, 6, 6]) {
  param @base.weight: f32[4, 5]
  param @head.weight: f32[5, 3]
  %pooled: f32[batch, 4] = ops.mean(%pixel_values, axis=(2, 3))
  %hidden: f32[batch, 5] = layers.Dense(%pooled, @base.weight, units=5, use_bias=false)
  %logits: f32[batch, 3] = layers.Dense(%hidden, @head.weight, units=3, use_bias=false)
  return %logits
}

entry Model returns "logits"
"""


def test_one_row_of_logits_for_an_image() -> None:
    head = head_of(IMAGES, inside=("pooled", "hidden"))
    assert head is not None and (head.task, head.name) == ("ImageClassifier", "ImageClassifier")
    # Two things are not to be told from images alone: what is no image, and scores that are no logits.
    for other in (IMAGES.replace("pixel_values", "input_values"), IMAGES.replace('"logits"', '"scores"')):
        head = head_of(other, inside=("pooled", "hidden"))
        assert head is not None and head.task == "Task"


def test_models_without_a_head() -> None:
    assert head_of(PROGRAM, prefix="other") is None
    assert head_of(PROGRAM, prefix="") is None
    assert head_of(PROGRAM, inside=(*INSIDE, "logits")) is None


def test_what_the_base_model_needs_is_in_the_backbone() -> None:
    head = head_of(PROGRAM, inside=("hidden",))
    assert head is not None and head.backbone == {"embedded", "hidden"}


def test_the_owners_of_layers_are_a_base_model_without_a_name() -> None:
    model_class = SimpleNamespace(__name__="TinyForX", base_model_prefix="other")
    traced = parse_program(TRACED.replace("entry Model", 'entry Model returns "logits"'))
    program = located(PROGRAM)
    head = find_head(model_class, traced, program, True, ["base.layers"])  # type: ignore[arg-type]
    assert head is not None and head.outputs == {"sequence_output": "hidden"}
    assert find_head(model_class, traced, program, True, ["elsewhere.layers"]) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("returned, handed", [("@weight", []), ("%scaled", ["shared"])])
def test_a_weight_that_the_head_reads_too_is_no_output_of_the_backbone(returned: str, handed: list[str]) -> None:
    callee = f"""
graph Shared(%x: f32[batch, seq, 4]) {{
  param @weight: f32[4, 4]
  %size: f32[4, 4] = ops.mean(%x, axis=(0, 1), keepdims=true)
  %scaled: f32[4, 4] = ops.multiply(@weight, %size)
  return {returned}
}}
"""
    shared = '  %shared: f32[4, 4] = call(%embedded, graph="Shared", path="base.shared")\n'
    product = "  %hidden: f32[batch, seq, 4] = ops.matmul(%embedded, %shared)\n"
    again = "  %again: f32[batch, seq, 4] = ops.matmul(%hidden, %shared)\n"
    before, after = PROGRAM.split("  %hidden: f32[batch, seq, 4] = ops.relu(%embedded)\n")
    text = callee + before + shared + product + again + after.replace("Dense(%hidden", "Dense(%again")
    head = head_of(text, inside=(*INSIDE, "shared"))
    assert head is not None and "shared" in head.backbone
    assert [value for value in head.outputs.values() if value != "hidden"] == handed
