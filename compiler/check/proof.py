"""The data of a proof: what was compared, by how much it differs, what was allowed."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hf2khc.diagnostics import Diagnostic

# What the name of a case ends with where the outputs are those of the cached step.
CACHED = ", cached"
# What a diagnostic begins with where the step itself ends with an error.
CANNOT_DECODE = "the cached step fails"


@dataclass(frozen=True)
class Source:
    """The transformers model a package came from.

    Args:
        module: importable module of the class, such as `transformers`.
        qualname: the class in it.
        path: local directory that `from_pretrained` reads.
        options: further keyword arguments of `from_pretrained`.
        python_path: directories put before `sys.path` first, for a class that no installed package defines.
    """

    module: str
    qualname: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)
    python_path: tuple[str, ...] = ()


@dataclass(frozen=True)
class OutputError:
    """One output in one case on one backend.

    Args:
        output: key of the output in the signature, a dotted path of transformers' ModelOutput.
        case: name of the input set.
        backend: Keras backend.
        ours: largest error of the package against float64, relative to `magnitude`; for integers the share of unequal
            elements. None where no number can be given, see `problem`.
        theirs: the same for transformers in float32.
        bound: what `ours` may be, `max(4 * theirs, 2e-6)`; 0 for integers.
        magnitude: largest magnitude of the float64 reference over the compared elements.
        compared: number of elements compared.
        apart: number of elements in rows whose mask is 0, which are not compared.
        ours_apart: the package's error over those rows, where it is finite.
        theirs_apart: transformers' error over those rows.
        problem: why there is no comparison (missing, wrong shape, not finite), or empty.
        holds: whether the output is right.
    """

    output: str
    case: str
    backend: str
    ours: float | None
    theirs: float | None
    bound: float
    magnitude: float
    compared: int
    apart: int = 0
    ours_apart: float | None = None
    theirs_apart: float | None = None
    problem: str = ""
    holds: bool = False


@dataclass(frozen=True)
class Run:
    """One process of the proof: `side` is `transformers` or a Keras backend.

    `restored` are the parameters that transformers changes once it has loaded them: the proof is against those stored.
    """

    side: str
    load_seconds: float
    run_seconds: float
    peak_bytes: int
    tensors: int
    parameters: int
    restored: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Proof:
    """The result of `prove`; `holds` when no diagnostic was raised."""

    holds: bool
    rows: tuple[OutputError, ...]
    runs: tuple[Run, ...]
    diagnostics: tuple[Diagnostic, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain lists, dicts and numbers."""
        return json.loads(json.dumps(asdict(self)))

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Proof":
        """The proof that `to_json` wrote."""
        return Proof(
            data["holds"],
            tuple(OutputError(**row) for row in data["rows"]),
            tuple(Run(**run) for run in data["runs"]),
            tuple(Diagnostic(**diagnostic) for diagnostic in data["diagnostics"]),
        )
