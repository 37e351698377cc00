"""Both ways side by side: the judge on made-up facts, the document, and one model for real."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compare import DOCUMENT, README, load
from benchmarks.compare_chart import chart
from benchmarks.compare_document import quote, summary, write_document
from benchmarks.compare_models import CASES
from hf2khc.cli import main as cli
from hf2khc.comparison import compare as module
from hf2khc.comparison.compare import WAYS, Comparison, compare, markdown
from hf2khc.comparison.judge import CRITERIA, Cell, cells, keras_kind, torch_kind
from hf2khc.diagnostics import ConversionError, fail

ROW = {"output": "logits", "ours": 1e-7, "theirs": 2e-7, "problem": "", "holds": True}
FACTS: dict[str, Any] = {
    "class": "SomeModel",
    "directory": "somewhere",
    "modules": [
        {"path": "embed", "class": "Embedding", "bias": False, "tensors": ["e"]},
        {"path": "norm", "class": "SomeRMSNorm", "bias": False, "tensors": ["n"]},
        {"path": "mlp.up", "class": "Linear", "bias": True, "tensors": ["u", "ub"]},
    ],
    "parts": {"SomeMLP": ["mlp.up"], "SomeRMSNorm": ["norm"]},
    "tensors": ["e", "n", "u", "ub"],
    "repeats": {},
    "parameters": 100,
    "fields": {"hidden_dim": 8, "num_heads": 2, "layer_norm_epsilon": 1e-6},
}
RIGHT: dict[str, Any] = {
    "made": "compiled",
    "placed": {"e/embeddings": ["e"], "n/scale": ["n"], "u/kernel": ["u"], "u/bias": ["ub"]},
    "layers": {
        "e/embeddings": "ReversibleEmbedding", "n/scale": "RMSNormalization", "u/kernel": "Dense", "u/bias": "Dense",
    },
    "parameters": 100,
    "values": {"hidden_dim": 8, "num_query_heads": 2, "layer_norm_epsilon": 1e-6},
    "seconds": 2.0,
    "peak_bytes": 2**30,
    "rows": [ROW],
    "problems": [],
    "proved": True,
}  # fmt: skip


def judged(**changes: Any) -> dict[str, Cell]:
    return cells(FACTS, {**RIGHT, **changes})


def test_what_is_right_counts_in_full() -> None:
    found = judged()
    assert list(found) == list(CRITERIA)
    assert all(cell.share in (None, 1.0) for cell in found.values())
    assert found["model understanding"].text == "3 of 3 modules with parameters accounted for"
    assert "3 right, 0 wrong, 0 absent" in found["parameter accuracy"].text
    assert found["time and peak memory"].text == "2.0 s, 1.00 GiB"


def test_a_tensor_that_is_not_placed_is_missed() -> None:
    found = judged(placed={path: names for path, names in RIGHT["placed"].items() if path != "u/kernel"})
    assert found["model understanding"] == Cell("2 of 3 modules with parameters accounted for (not: mlp.up)", 2 / 3)
    assert found["architecture-specific parts"] == Cell("1 of 2 classes of the model's own (not: SomeMLP)", 0.5)
    assert "tensors placed: 3 of 4" in found["parameter accuracy"].text
    assert found["layer detection"].share == 2 / 3


def test_a_tensor_that_nothing_needs_is_accounted_for() -> None:
    placed = {path: names for path, names in RIGHT["placed"].items() if path != "n/scale"}
    assert judged(placed=placed)["model understanding"].share == 2 / 3
    assert judged(placed=placed, explained={"n": "no output depends on it"})["model understanding"].share == 1


def test_a_norm_of_another_kind_is_no_such_layer() -> None:
    layers = {**RIGHT["layers"], "n/scale": "LayerNormalization"}
    found = judged(layers=layers)
    assert found["layer detection"].share == 2 / 3 and "norm" in found["layer detection"].text
    assert "SomeRMSNorm" in found["architecture-specific parts"].text


def test_the_matrix_of_the_logits_may_lie_in_an_embedding() -> None:
    placed = {"e/embeddings": ["e"], "n/scale": ["n"], "e/reverse_embeddings": ["u"], "u/bias": ["ub"]}
    layers = {**RIGHT["layers"], "e/reverse_embeddings": "ReversibleEmbedding"}
    assert judged(placed=placed, layers=layers)["layer detection"].share == 1
    moved = {"e/embeddings": ["e"], "n/scale": ["n"], "e/other": ["u"], "u/bias": ["ub"]}
    assert judged(placed=moved, layers={**layers, "e/other": "Embedding"})["layer detection"].share == 2 / 3


def test_wrong_and_absent_values_are_told_apart() -> None:
    text = judged(values={"hidden_dim": 9, "num_heads": 2})["parameter accuracy"].text
    assert "1 right, 1 wrong (hidden_dim), 1 absent (layer_norm_epsilon)" in text


def test_errors_of_each_output() -> None:
    found = judged(rows=[ROW, {**ROW, "ours": 0.5, "holds": False}], proved=False)["forward pass"]
    assert found == Cell("logits: 5.0e-01, transformers' own 2.0e-07, differs", 0.0)
    assert judged(lost=["pooler_output"])["forward pass"].share == 0.5
    found = judged(rows=[], problems=["the reference fails"])["forward pass"]
    assert found == Cell("not measured: the reference fails", 0.0)


def test_a_model_that_is_not_converted_says_why_in_every_cell() -> None:
    found = cells(FACTS, {"error": {"code": "no-template", "message": "no template fits"}})
    assert found["new-model support"] == Cell("no: [no-template] no template fits", 0.0)
    assert found["forward pass"].text == "not measured: no package ([no-template])"
    assert found["time and peak memory"].share is None


@pytest.mark.parametrize(
    ("theirs", "ours", "bias"),
    [
        ("Linear", "EinsumDense", True), ("Conv1D", "Dense", True), ("Conv2d", "Conv2D", True),
        ("LayerNorm", "LayerNormalization", True), ("LayerNorm", "LayerNormalization", False),
        ("SomeRMSNorm", "RMSNormalization", False), ("BatchNorm2d", "BatchNormalization", True),
    ],
)  # fmt: skip
def test_kinds_agree(theirs: str, ours: str, bias: bool) -> None:
    assert torch_kind(theirs, bias) == keras_kind(ours, bias) is not None


def test_kinds_that_differ() -> None:
    assert torch_kind("SomeRMSNorm", False) != keras_kind("LayerNormalization", True)
    assert torch_kind("Conv1d", True) != keras_kind("Dense", True)
    assert torch_kind("SomeExperts", False) is None


def jobs(monkeypatch: pytest.MonkeyPatch, static: Any = RIGHT) -> list[dict[str, Any]]:
    """What processes were asked for; they answer at once."""
    asked = []

    def run_job(name: str, job: dict[str, Any], environment: Any) -> Any:
        asked.append({"module": name, **job})
        if name.endswith("model_facts"):
            return FACTS
        if job["way"] == "static" and isinstance(static, ConversionError):
            raise static
        return static if job["way"] == "static" else RIGHT

    monkeypatch.setattr(module, "run_job", run_job)
    return asked


def test_each_way_has_a_process_and_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = jobs(monkeypatch)
    found = compare("some", random_init=True, overrides={"depth": 2})
    assert [job.get("way") for job in asked] == [None, "static", "dynamic"]
    assert asked[1]["directory"] == asked[2]["directory"] == "somewhere"
    assert asked[0]["options"]["overrides"] == {"depth": 2} and found.title == "some (depth=2)"
    assert found.proved == {"static": True, "dynamic": True}


def test_a_process_that_dies_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs(monkeypatch, fail("child-process", "was killed by signal 9"))
    found = compare("some")
    assert "killed" in found.cells["static"]["new-model support"].text and found.seconds["static"] is None
    assert found.proved == {"static": False, "dynamic": True}


def test_the_command_prints_and_writes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    jobs(monkeypatch)
    assert cli.main(["compare", "some", "-o", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*CRITERIA, *WAYS))
    assert "| forward pass | logits: 1.0e-07" in (tmp_path / "compare.md").read_text()
    written = json.loads((tmp_path / "compare.json").read_text())
    assert written[0]["cells"]["dynamic"]["forward pass"]["share"] == 1.0
    assert cli.main(["compare", "some", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["model"] == "some"


@pytest.mark.parametrize("words", [[], ["some", "--set", "a=1"], ["some", "--frobnicate"]])
def test_wrong_usage(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert cli.main(["compare", *words]) == 1
    assert capsys.readouterr().err.startswith("error[usage]")


def comparison() -> Comparison:
    good = cells(FACTS, RIGHT)
    bad = cells(FACTS, {"error": {"code": "no-template", "message": "no template fits"}})
    return Comparison(
        "some", "some", "SomeModel", {"static": bad, "dynamic": good}, {"static": False, "dynamic": True},
        {"static": None, "dynamic": 2.0},
    )  # fmt: skip


def test_markdown_has_a_row_for_each_criterion() -> None:
    text = markdown([comparison()])
    assert all(f"| {name} |" in text for name in CRITERIA)


def test_the_document_and_its_chart(tmp_path: Path) -> None:
    machine = {"processor": "one", "cores": 2, "memory_gib": 8}
    shared = {"machine": machine, "busy": 0.0, "command": "hf2khc compare some"}
    results = [{**comparison().to_json(), **shared}, {"title": "other", "failure": "no such model", **shared}]
    write_document(tmp_path / "document.md", results)
    text = (tmp_path / "document.md").read_text()
    assert "the static way converted 0 and got 0 right; the dynamic way converted 1 and got 1 right" in text
    assert "not measured: no such model" in text and "](static_vs_dynamic.svg)" in text
    drawn = (tmp_path / "static_vs_dynamic.svg").read_text()
    assert "forward pass" in drawn and "100%" in drawn
    write_document(tmp_path / "document.md", results)
    assert (tmp_path / "static_vs_dynamic.svg").read_text() == drawn


def test_bars_are_labelled_with_their_numbers() -> None:
    drawn = chart({"static": {"forward pass": 0.25}, "dynamic": {"other": 1.0}}, {"static": None, "dynamic": 12.0})
    assert all(text in drawn for text in ("25%", "100%", "not measured", "12.0 s"))


def test_the_summary_counts() -> None:
    assert summary([comparison().to_json()]).startswith("Of 1 models and variants of their configs, the static way")


def test_the_summary_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("a\n\n<!-- compare: begin -->\nold\n<!-- compare: end -->\n\nb\n")
    quote(tmp_path / "README.md", [comparison().to_json()])
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("a\n") and text.endswith("\nb\n") and "old" not in text and "Of 1 models" in text


def test_the_readme_and_the_document_say_what_the_results_say() -> None:
    said = summary(load())
    assert said in " ".join(README.read_text(encoding="utf-8").split())
    assert said in DOCUMENT.read_text(encoding="utf-8")


def test_the_list_has_what_is_to_be_compared() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.kind for case in CASES} == {"model", "variant", "zoo"}
    shape = next(case for case in CASES if case.name == "dialogpt_medium").overrides
    assert (shape["n_embd"], shape["n_layer"], shape["n_head"], shape["vocab_size"]) == (1024, 24, 16, 50257)


@pytest.mark.slow
def test_one_model_for_real() -> None:
    sizes = {"vocab_size": 61, "n_positions": 48, "n_embd": 40, "n_layer": 2, "n_head": 4, "layer_norm_epsilon": 0.1}
    found = compare("gpt2", random_init=True, overrides=sizes)
    assert found.proved == {"static": False, "dynamic": True}
