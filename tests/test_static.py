"""The static way: KerasHub's own converter, or a template; what is placed is counted, and nothing is claimed."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors
from safetensors.numpy import save_file
from tiny_models import bert, gpt2, t5
from transformers import ElectraConfig, OPTConfig

import hf2khc
from hf2khc.cli import main as cli
from hf2khc.cli.options import parse_options
from hf2khc.diagnostics import ConversionError
from hf2khc.driver.report import to_json
from hf2khc.static.convert import convert_static
from hf2khc.static.place import place
from hf2khc.static.record import recorded
from hf2khc.static.signature import static_signature
from hf2khc.static.template import argument_values, backbone_text, fill_template
from hf2khc.weights.checkpoint import Checkpoint

ELECTRA = {
    "vocab_size": 61, "embedding_size": 40, "hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 52, "max_position_embeddings": 48,
}  # fmt: skip
GPT2 = {"vocab_size": 61, "n_positions": 48, "n_embd": 40, "n_layer": 2, "n_head": 4}

BERT = {"vocab_size": 61, "hidden_size": 40, "num_hidden_layers": 1, "num_attention_heads": 4}


def options(values: dict[str, object]) -> list[str]:
    return ["--random-init", *(f"--set={name}={value}" for name, value in values.items())]


# --- KerasHub's own converter ----------------------------------------------------------------------------------------


def test_a_converter_of_kerashub_is_used(tmp_path: Path) -> None:
    made = convert_static("gpt2", tmp_path / "out", random_init=True, overrides=GPT2, task="causal-lm")
    report = made.report
    assert report.proved is None and "KerasHub's own converter" in report.way
    assert report.source["package"] == "GPT2Backbone, GPT2CausalLM"
    assert report.weights["tensors"] == report.weights["tensors placed"] == 28
    assert report.weights["variables without a tensor"] == 0
    assert report.parameters["keras"] == report.parameters["transformers"]
    assert "**This package is unproven.**" in (tmp_path / "out" / "REPORT.md").read_text()
    assert json.loads((tmp_path / "out" / "report.json").read_text())["proved"] is None
    model = hf2khc.load(tmp_path / "out")
    assert type(model).__name__ == "GPT2CausalLM"
    assert model.backbone.token_embedding.embeddings.shape == (61, 40)


def test_a_converter_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from keras_hub.models import Backbone

    def broken(*arguments: object, **options: object) -> None:
        raise KeyError("rope_theta")

    monkeypatch.setattr(Backbone, "from_preset", broken)
    with pytest.raises(ConversionError) as error:
        convert_static("bert", tmp_path / "out", random_init=True, overrides=BERT)
    assert error.value.diagnostics[0].code == "kerashub-converter"
    assert "rope_theta" in error.value.diagnostics[0].excerpt
    assert not (tmp_path / "out").exists()


def test_what_goes_where_is_seen(tmp_path: Path) -> None:
    save_file({"a": np.ones(3, "float32"), "b": np.ones(3, "float32")}, tmp_path / "x.safetensors")
    first, second = keras.Variable(np.zeros(3), name="first"), keras.Variable(np.zeros(3), name="second")
    with recorded() as placement, safetensors.safe_open(tmp_path / "x.safetensors", framework="np") as file:
        first.assign(file.get_tensor("a") + file.get_tensor("b"))
        second.assign(np.ones(3))
    assert placement.placed == {first.path: ("a", "b")} and placement.read == {"a", "b"}
    assert np.array_equal(keras.ops.convert_to_numpy(first), np.full(3, 2.0))
    first.assign(np.zeros(3))
    assert placement.placed == {first.path: ("a", "b")}
    assert safetensors.safe_open.__module__ != "hf2khc.static.record"


# --- templates -------------------------------------------------------------------------------------------------------


def test_a_template_stands_where_there_is_no_converter(tmp_path: Path) -> None:
    made = convert_static("electra", tmp_path / "out", random_init=True, overrides=ELECTRA)
    assert "template" in made.report.way and made.report.source["package"] == "ElectraBackbone"
    assert made.report.weights["tensors not placed"] == made.report.weights["variables without a tensor"] == 0
    source = (tmp_path / "out" / "electra" / "electra_backbone.py").read_text()
    assert "TransformerEncoder(" in source and "Made without reading the model" in source
    model = hf2khc.load(tmp_path / "out")
    assert model.get_config()["layer_norm_epsilon"] == ElectraConfig().layer_norm_eps


def test_what_a_template_does_not_place_is_counted(tmp_path: Path) -> None:
    sizes = {"hidden_size": 40, "word_embed_proj_dim": 40, "ffn_dim": 52, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 4, "vocab_size": 61, "max_position_embeddings": 48}
    made = convert_static("opt", tmp_path / "out", random_init=True, overrides=sizes, task="causal-lm")
    assert made.report.source["package"] == "OptBackbone, OptCausalLM"
    # Positions begin at 2 and the feedforward networks have a width of their own: no template knows that.
    assert made.report.weights["tensors not placed"] == made.report.weights["variables without a tensor"] == 4
    assert any("embed_positions" in note for note in made.report.notes)


def test_values_go_by_kerashubs_names() -> None:
    values = argument_values(OPTConfig(hidden_size=40, num_attention_heads=4, vocab_size=61))
    assert values["hidden_dim"] == 40 and values["num_heads"] == 4 and values["vocabulary_size"] == 61


def test_an_activation_that_keras_lacks_is_reported() -> None:
    template = fill_template("other", gpt2(activation_function="quick_gelu"), decoder=True, causal=False)
    assert template.values["activation"] == "relu"
    assert any("quick_gelu" in note for note in template.notes)
    assert fill_template("other", gpt2(activation_function="silu"), True, False).values["activation"] == "silu"


def test_the_two_templates_are_printed() -> None:
    decoder = backbone_text(fill_template("one", gpt2(), decoder=True, causal=True), "Said.")
    encoder = backbone_text(fill_template("two", bert(), decoder=False, causal=False), "Said.")
    assert "TransformerDecoder(" in decoder and "normalize_first=True" in decoder and "segment" not in decoder
    assert "TransformerEncoder(" in encoder and "segment_embedding" in encoder and "normalize_first=False" in encoder


@pytest.mark.parametrize("config", [t5(), gpt2(n_head=7)])
def test_no_template_fits(config) -> None:
    with pytest.raises(ConversionError) as error:
        fill_template("other", config, decoder=False, causal=False)
    assert error.value.diagnostics[0].code == "no-template"


def test_tensors_go_where_name_and_shape_fit(tmp_path: Path) -> None:
    dense = keras.layers.Dense(3, name="feedforward_intermediate_dense")
    block = keras.Sequential([dense], name="transformer_layer_1")
    block.build((None, 2))
    kernel = np.arange(6, dtype="float32").reshape(3, 2)
    tensors = {"h.0.fc1.weight": kernel + 9, "h.1.fc1.weight": kernel, "h.1.fc1.bias": np.zeros(4, "float32")}
    save_file(tensors, tmp_path / "model.safetensors")
    variables = list(block.weights)
    assert variables[0].path == "transformer_layer_1/feedforward_intermediate_dense/kernel"
    assert list(place(variables, Checkpoint(tmp_path)).values()) == ["h.1.fc1.weight"]
    assert np.array_equal(keras.ops.convert_to_numpy(dense.kernel), kernel.T)


def test_signature_of_images() -> None:
    image = keras.Input((8, 8, 3), name="images")
    signature = static_signature(keras.Model({"images": image}, keras.layers.Flatten()(image)))
    entry = signature["inputs"]["pixel_values"]
    assert entry["shape"] == ["batch", 3, 8, 8] and entry["permute"] == [0, 2, 3, 1]
    assert list(signature["outputs"]) == ["last_hidden_state"]


# --- the command line ------------------------------------------------------------------------------------------------


def test_the_command_says_that_nothing_is_proved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["electra", *options(ELECTRA), "--static", "-o", str(tmp_path / "out")])
    shown = capsys.readouterr().out
    assert code == 0 and "unproven" in shown and "template" in shown and "tensors not placed: 0" in shown


@pytest.mark.parametrize("words", [["--no-weights"], ["--emit-ir"], ["--explain"], ["--backend", "torch"]])
def test_options_that_make_no_sense_together(words: list[str]) -> None:
    with pytest.raises(ConversionError) as error:
        parse_options(["gpt2", "--static", *words])
    assert error.value.diagnostics[0].code == "usage"


def test_the_proof_runs_when_it_is_asked_for() -> None:
    assert parse_options(["gpt2", "--static"]).check is False
    assert parse_options(["gpt2", "--static", "--check", "--backend", "torch"]).check is True


def test_a_report_of_the_static_way_is_data() -> None:
    from hf2khc.driver.report import Report

    assert to_json(Report({}, way="a template"))["way"] == "a template"
