"""Golden files: cases of IR in and IR out, one file per pass.

    == what the case shows
    graph ...
    --
    graph ...

Under `--` stands what the pass gives, `unchanged` where it must not fire, or `error CODE`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hf2khc.diagnostics import ConversionError
from hf2khc.ir.graph import Program
from hf2khc.ir.text import format_program, parse_program

FOLDER = Path(__file__).with_name("golden")


@dataclass(frozen=True)
class Case:
    """One case of a golden file: a title, IR before, and what is expected."""

    step: str
    title: str
    before: str
    after: str


def cases(step: str) -> Iterator[Case]:
    """The cases of one pass."""
    for part in (FOLDER / f"{step}.test").read_text(encoding="utf-8").split("== ")[1:]:
        title, _, body = part.partition("\n")
        before, _, after = body.partition("\n--\n")
        yield Case(step, title, before.strip() + "\n", after.strip() + "\n")


def result(function: Callable[[Program], Program], case: Case) -> str:
    """What the pass gives for a case, as it stands in the file."""
    try:
        after = format_program(function(parse_program(case.before)))
    except ConversionError as error:
        return f"error {error.diagnostics[0].code}\n"
    return "unchanged\n" if after == case.before else after


def write(step: str, content: list[Case]) -> None:
    """Replace the file of a pass."""
    text = "\n".join(f"== {case.title}\n{case.before}--\n{case.after}" for case in content)
    (FOLDER / f"{step}.test").write_text(text, encoding="utf-8")
