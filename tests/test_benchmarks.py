"""The benchmarks' own logic: what is run, what is kept of it, and how it is printed. Nothing is measured here."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    """Imports a module of `benchmarks/`, which is not installed."""
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])

    def load(name: str) -> ModuleType:
        return importlib.import_module(f"benchmarks.{name}")

    return load


def row(backend: str, output: str, ours: float | None, holds: bool = True, case: str = "none") -> dict:
    return {
        "backend": backend, "output": output, "case": case, "ours": ours, "theirs": 1e-7, "bound": 2e-6,
        "magnitude": 1.0, "holds": holds,
    }  # fmt: skip


def result(**changes) -> dict:
    stages = [{"name": "open", "seconds": 1.5, "peak_bytes": 10**9}, {"name": "check", "seconds": 2.0, "peak_bytes": 2}]
    base = {
        "name": "bert", "title": "BERT base", "ok": True, "command": "hf2khc bert --random-init",
        "machine": {"processor": "P", "cores": 2, "memory_gib": 23}, "parameters": {"transformers": 110_000_000},
        "parity": [row("jax", "logits", 1e-7), row("torch", "logits", 3e-7)], "stages": stages,
    }  # fmt: skip
    return {**base, **changes}


def test_the_commands_of_the_models_are_ones_that_the_command_line_takes(bench, tmp_path) -> None:
    from hf2khc.cli.options import parse_options

    command, models = bench("command"), bench("models")
    for benchmark in models.MODELS:
        if benchmark.model:
            words = command.of_benchmark(benchmark, tmp_path, "-o", str(tmp_path / "package"), "--json")
            assert parse_options(words).overrides == dict(benchmark.overrides), benchmark.name


def test_every_override_is_a_field_of_its_config(bench) -> None:
    from hf2khc.capture.configs import default_config

    models = bench("models")
    configs = [(b.model, b.overrides) for b in models.MODELS if b.model] + [("llama", models.LLAMA_70B)]
    for model, overrides in configs:
        config = default_config(model, dict(overrides))
        assert all(getattr(config, name) == value for name, value in overrides.items() if name != "rope_parameters")


def test_a_quoted_command_runs_in_a_shell_and_names_no_folder_of_this_machine(bench, tmp_path) -> None:
    command = bench("command")
    words = command.arguments("llama", {"rope_parameters": {"factor": 8.0}}, "-o", str(tmp_path / "package"))
    assert command.quoted(words, tmp_path) == (
        "hf2khc llama --random-init '--set=rope_parameters={\"factor\": 8.0}' -o package"
    )


def test_the_worst_case_of_each_output_is_kept_and_one_failure_is_enough(bench) -> None:
    worst = bench("conversion").worst
    rows = [row("jax", "a", 1e-3, holds=False), row("jax", "a", 5e-3), row("jax", "b", 1e-7), row("jax", "b", None)]
    first, second = worst(rows)
    assert (first["ours"], first["holds"]) == (5e-3, False)
    assert second["ours"] is None


def test_a_failure_is_a_result(bench, monkeypatch, tmp_path) -> None:
    conversion, models = bench("conversion"), bench("models")
    errors = {"errors": [{"code": "lowering", "message": "no rule"}]}
    monkeypatch.setattr(conversion, "_run", lambda words: (errors, "open: 1.5 s\ncapture ...\n"))
    found = conversion.measure(models.Benchmark("x", "X", "gpt2"))
    assert found["ok"] is False and found["reached"] == {"open": 1.5}
    assert found["failure"] == errors["errors"]


def test_paths_of_this_machine_are_taken_out(bench, tmp_path) -> None:
    clean = bench("conversion")._without
    assert clean({"notes": [f"{ROOT}/passes/x.py", f"{tmp_path}/package"]}, tmp_path) == {
        "notes": ["passes/x.py", "package"]
    }


def test_the_tables_show_what_holds_what_differs_and_what_fails(bench) -> None:
    render = bench("table").render
    failure = {"title": "ViT base", "machine": result()["machine"], "failure": [{"code": "op", "message": "no rule"}]}
    text = render({"bert": result(), "vit": failure})
    assert "| BERT base | 110.0 M | logits | 1.0e-07 |  | 3.0e-07 | 1.0e-07 | holds |" in text
    assert "fails: [op] no rule" in text
    assert "| BERT base | 1.5 / 1.0 | 2.0 / 0.0 | 4 s |" in text
    broken = result(parity=[row("jax", "logits", 1e-7), row("torch", "logits", 3e-2, holds=False)])
    assert "**differs**" in render({"bert": broken})


def test_the_aims_say_what_was_reached(bench) -> None:
    aim = {"aim": "under 1.5 GB", "peak_bytes": 1.6e9, "holds": False, "command": "x", "machine": result()["machine"]}
    assert "| under 1.5 GB | 1.60 GB | no | `x` |" in bench("table").render({"compile_memory": aim})


def test_the_readme_shows_the_results_that_are_there(bench, tmp_path) -> None:
    table, run = bench("table"), bench("run")
    readme = run.README.read_text(encoding="utf-8")
    (tmp_path / "README.md").write_text(readme, encoding="utf-8")
    table.update(tmp_path / "README.md", run.RESULTS)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == readme


def test_results_are_json_named_after_what_can_be_measured(bench) -> None:
    run, table = bench("run"), bench("table")
    for path in run.RESULTS.glob("*.json"):
        assert path.stem in (*run.jobs(), *table.ELSEWHERE)
        text = path.read_text(encoding="utf-8")
        json.loads(text)
        assert str(ROOT) not in text


def test_unknown_names_are_refused(bench) -> None:
    run = bench("run")
    assert run.chosen("gpt2, bert") == ["gpt2", "bert"]
    with pytest.raises(SystemExit, match="nope"):
        run.chosen("gpt2,nope")


def test_the_inputs_of_the_difference_are_padded_on_the_right(bench) -> None:
    inputs = bench("difference").token_inputs(100)
    assert inputs["attention_mask"].sum(axis=1).tolist() == [48, 24, 7, 1]
    assert (inputs["input_ids"][inputs["attention_mask"] == 0] == 0).all()


def _row(speed: float, ahead: int) -> dict:
    ratios = {"prefill": 0.5, "decode": 1.5}
    return {
        "prefill": 2 * speed,
        "decode": speed,
        "ratios": ratios,
        "ahead": {"prefill": 0, "decode": ahead},
        "turns": 15,
    }


SPEEDS = {
    "transformers": {"torch": {"prefill": 1000.0, "decode": 100.0}},
    "KerasHub": {"jax": {"prefill": 900.0, "decode": 50.0}, "torch": {"failure": "ValueError: no"}},
    "package": {"jax": _row(75.0, 4), "torch": {"prefill": 500.0, "decode": 20.0}},
}


def test_generation_is_compared_turn_by_turn(bench, monkeypatch) -> None:
    generation = bench("generation")
    monkeypatch.setattr(generation, "BACKENDS", ("jax", "torch"))
    monkeypatch.setattr(generation, "_measured", lambda name: SPEEDS)
    found = generation.generation(("gpt2",))
    # Where KerasHub's own class fails there is nothing to be slower than; 4 turns of 15 may be chance, 3 are not.
    assert found["holds"]
    text = bench("table").render({"generation": found})
    assert "| gpt2 | KerasHub | torch | fails: ValueError: no | fails: ValueError: no |" in text
    assert "| gpt2 | package | jax | 150 | 75 | 0.50 (0 of 15) | 1.50 (4 of 15) |" in text
    assert "1.50 to 1.50 times KerasHub's" in text
    for package in ({**SPEEDS["package"], "jax": _row(75.0, 3)}, {"jax": {"failure": "no"}, "torch": {}}):
        monkeypatch.setattr(generation, "_measured", lambda name, package=package: {**SPEEDS, "package": package})
        assert not generation.generation(("gpt2",))["holds"]


def test_decoding_is_timed_without_the_prompt(bench, monkeypatch) -> None:
    speed = bench("generation_speed")
    # A prompt takes 0.01 s a token, padded to the whole length in Keras, and a step 0.1 s.
    monkeypatch.setattr(speed, "_transformers", lambda directory, way: None)
    monkeypatch.setattr(speed, "_keras", lambda directory, way: 21)
    monkeypatch.setattr(
        speed, "_seconds",
        lambda padded, tokens, to: 0.01 * (padded or tokens.shape[1]) + 0.1 * (to - tokens.shape[1]),
    )  # fmt: skip
    ways = {speed.EAGER: "", speed.PACKAGE: ""}
    found = speed.speeds({"ways": ways, "batch": 2, "prompt": 10, "new": 11, "vocabulary": 50, "repeats": 3})
    assert {way: rates["decode"] for way, rates in found.items()} == pytest.approx(dict.fromkeys(ways, 2 * 10 / 1.0))


def test_a_way_that_fails_ends_no_other(bench, monkeypatch) -> None:
    speed = bench("generation_speed")
    monkeypatch.setattr(speed, "_keras", lambda directory, way: {speed.PACKAGE: print}.get(way))
    ways = {speed.KERAS_HUB: "", speed.PACKAGE: ""}
    found = speed.speeds({"ways": ways, "batch": 2, "prompt": 3, "new": 2, "vocabulary": 50, "repeats": 1})
    assert found[speed.KERAS_HUB] == {"failure": "TypeError: 'NoneType' object is not callable"}
    assert found[speed.PACKAGE]["decode"]


def test_a_turn_is_compared_with_the_turn_beside_it(bench) -> None:
    speed = bench("generation_speed")
    found = speed._compared([(1.0, 2.0), (1.0, 2.0), (4.0, 8.0)], [(2.0, 1.0), (2.0, 3.0), (8.0, 12.0)])
    assert found == {"ratios": {"prefill": 2.0, "decode": 1.5}, "ahead": {"prefill": 3, "decode": 2}, "turns": 3}
