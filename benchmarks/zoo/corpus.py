"""What is converted: the zoo, or the model types beyond it, and where the results of each go."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.zoo import coverage, results
from benchmarks.zoo.specs import BEYOND, Spec, specs


@dataclass(frozen=True)
class Corpus:
    """Specs, and what is made of them.

    Args:
        specs: by name.
        lines: file of a run under way.
        result: file of the results.
        page: of what converts and what does not.
        introduction: of the page.
        decoders: file of the results of generation, which the page shows, too.
    """

    specs: Mapping[str, Spec]
    lines: Path
    result: Path
    page: Path
    introduction: str
    decoders: Path | None = None

    def write_page(self) -> None:
        """Write the page from the results."""
        coverage.write_coverage(self.result, self.page, self.decoders, self.introduction)


def zoo() -> Corpus:
    """The specs that the aims are about."""
    return Corpus(specs(), results.LINES, results.RESULT, coverage.PAGE, coverage.INTRODUCTION, results.DECODERS)


def beyond() -> Corpus:
    """Model types that the zoo has no spec of, at sizes such as the zoo's."""
    lines, result = results.LINES.with_name("beyond.jsonl"), results.RESULT.with_name("beyond.json")
    return Corpus(specs(BEYOND), lines, result, coverage.PAGE.with_name("beyond.md"), coverage.BEYOND)
