"""Every pass shows in its docstring what it does; here the examples are run."""

import inspect
import os
import textwrap
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import pytest

from hf2khc.ir.text import format_program, parse_program
from hf2khc.ir.verify import verify
from hf2khc.passes.pipeline import PIPELINE, every_pass, stage_names

PASSES = every_pass()


def example(function) -> tuple[str, str]:
    """IR before and after from a docstring."""
    text = inspect.getdoc(function)
    assert text and text.count("Before:") == text.count("After:") == 1, f"{function.__name__} shows no IR"
    before, after = text.split("Before:")[1].split("After:")
    after = after.split("\nRaises:")[0]
    return textwrap.dedent(before).strip() + "\n", textwrap.dedent(after).strip() + "\n"


@pytest.mark.parametrize(("level", "step"), PASSES, ids=[step.__name__ for _, step in PASSES])
def test_the_docstring_shows_what_the_pass_does(level, step):
    before, after = example(step)
    program = parse_program(before)
    assert format_program(program) == before
    verify(program, None)
    result = step(program)
    verify(result, None)
    assert format_program(result) == after
    assert format_program(parse_program(after)) == after
    assert before != after


@pytest.mark.parametrize(("level", "step"), PASSES, ids=[step.__name__ for _, step in PASSES])
def test_a_pass_is_pure_and_has_nothing_left_to_do(level, step):
    before, after = example(step)
    program = parse_program(before)
    step(program)
    assert format_program(program) == before
    assert format_program(step(parse_program(after))) == after


@pytest.mark.parametrize(("level", "step"), PASSES, ids=[step.__name__ for _, step in PASSES])
def test_one_file_per_pass_under_the_name_of_the_pass(level, step):
    path = Path(inspect.getsourcefile(step))
    folder = {"ops": "core", "hub": "hub", "keras": "keras"}[level]
    assert (path.parent.name, path.stem) == (folder, step.__name__)
    assert inspect.getmodule(step).__name__ == f"hf2khc.passes.{folder}.{step.__name__}"


def test_stages_are_the_passes_each_once():
    assert stage_names() == ["aten", *(step.__name__ for level in PIPELINE for step in level.passes)]
    assert len(set(stage_names())) == len(stage_names())
