"""The report: the worst case of each output, and text that agrees with the data."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from hf2khc.check.proof import OutputError
from hf2khc.driver.describe import _generation, _inputs
from hf2khc.driver.report import Report, to_json, to_markdown, worst, write_report
from hf2khc.driver.stages import StageRecord


def row(case: str, ours: float | None, bound: float = 2e-6, output: str = "logits", **more: object) -> OutputError:
    holds = ours is not None and ours <= bound
    return OutputError(output, case, "torch", ours, 1e-7, bound, 1.0, 10, holds=holds, **more)


ROWS = (row("a", 1e-7), row("b", 1.5e-6), row("c", 5e-7), row("a", 3e-7, output="hidden"))
REPORT = Report(
    source={"model": "some/model", "class": "SomeModel"},
    sizes={"hidden_size": 64},
    parameters={"transformers": 1234567, "keras": 1234567},
    idioms={"Layer": {"linear": 4}},
    residue={"ops.add": 2},
    errors=ROWS,
    proved=True,
    stages=(StageRecord("capture", 1.5, 3 * 2**20),),
)


def test_worst_is_the_case_nearest_to_its_bound() -> None:
    assert [(found.output, found.case) for found in worst(ROWS)] == [("logits", "b"), ("hidden", "a")]


@pytest.mark.parametrize("bad", [row("bad", 1e-3), row("bad", None, problem="missing"), row("bad", float("nan"))])
def test_failure_is_always_the_worst(bad: OutputError) -> None:
    for rows in ((*ROWS, bad), (bad, *ROWS)):
        assert worst(rows)[0].case == "bad"


def test_both_files_say_the_same(tmp_path: Path) -> None:
    write_report(REPORT, tmp_path)
    data = json.loads((tmp_path / "report.json").read_text())
    text = (tmp_path / "REPORT.md").read_text()
    assert data == json.loads(json.dumps(to_json(REPORT))) and data["proved"] is True
    assert len(data["errors"]) == 4 and data["stages"] == [{"name": "capture", "seconds": 1.5, "peak_bytes": 3 * 2**20}]
    for part in (
        "some/model",
        "1,234,567",
        "1.5e-06",
        "| capture | 1.50 | 3 |",
        "| Layer | 4 linear |",
        "proof holds",
    ):
        assert part in text
    assert "differs" not in text


@pytest.mark.parametrize(("proved", "part"), [(False, "does not hold"), (None, "skipped")])
def test_no_proof_is_never_called_one(proved: bool | None, part: str) -> None:
    text = to_markdown(Report(source={"model": "m"}, proved=proved))
    assert part in text and "proof holds" not in text


def test_reasons_are_told() -> None:
    assert "the twin has other modules" in to_markdown(Report(source={}, reasons=("the twin has other modules",)))
    assert "at another config" in to_markdown(Report(source={}, config_generalises=True))
    kept = {"window": "the structure of the program depends on it"}
    text = to_markdown(Report(source={}, config_generalises=True, config_kept=kept))
    assert "- `window`: the structure of the program depends on it" in text


def notes_on_inputs(**about: object) -> list[str]:
    plan = SimpleNamespace(text=about.pop("tokenizer", None), images=about.pop("converter", None))
    return list(_inputs(SimpleNamespace(plan=plan, **{"textless": "", "imageless": "", **about})))  # type: ignore[arg-type]


def test_what_there_is_for_inputs_is_told_apart_from_what_is_missing() -> None:
    assert notes_on_inputs() == []
    (note,) = notes_on_inputs(textless="no vocabulary")
    assert note == "the package makes no inputs of text: no vocabulary"
    text, images = notes_on_inputs(textless="more", imageless="more", tokenizer=object(), converter=object())
    assert text.startswith("the package has a tokenizer, but no preprocessor")
    assert images.startswith("the package has an image converter, but no preprocessor") and images.endswith(": more")


def test_what_generation_leaves_out_is_noted() -> None:
    from transformers import GenerationConfig

    live = SimpleNamespace(generation_config=GenerationConfig(num_beams=4))
    source = SimpleNamespace(live=live, config=SimpleNamespace(is_encoder_decoder=False))
    compiled = SimpleNamespace(cacheless="", uncached=object())
    (note,) = _generation(compiled, source)  # type: ignore[arg-type]
    assert note.endswith("num_beams=4")
    compiled.uncached = None
    assert list(_generation(compiled, source)) == []  # type: ignore[arg-type]
