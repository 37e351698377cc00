"""KerasHub's contract with a model package, checked on every backend in a process of its own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hf2khc.diagnostics import ConversionError
from hf2khc.package import package_folder
from hf2khc.process import run_job

HOLDS, FAILS, SKIPPED = "holds", "fails", "skipped"


@dataclass(frozen=True)
class Finding:
    """One point of the contract on one backend.

    Args:
        check: name of the point.
        backend: Keras backend.
        verdict: `holds`, `fails` or `skipped`.
        detail: what was counted or measured; why it was skipped.
        faults: what fails, each line with the layer or variable it is about.
        seconds: how long it took.
    """

    check: str
    backend: str
    verdict: str
    detail: str = ""
    faults: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Contract:
    """What was found.

    Args:
        subject: the model that was checked, by backend: its config and where its weights come from.
        findings: in the order of the checks, one backend after the other.
    """

    subject: Mapping[str, str]
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing fails; what was skipped is not held against the package."""
        return bool(self.findings) and all(finding.verdict != FAILS for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Plain lists, dicts and numbers."""
        return {"holds": self.holds, **json.loads(json.dumps(asdict(self)))}


def verify(directory: Path, backends: Sequence[str]) -> Contract:
    """Check a package against KerasHub's contract.

    Args:
        directory: what a conversion wrote.
        backends: Keras backends to check it on.

    Returns:
        The findings. A backend whose process ends without an answer is one failing finding.

    Raises:
        ConversionError: `package`, when the folder holds no package.
    """
    package_folder(directory)
    subject: dict[str, str] = {}
    findings: list[Finding] = []
    for backend in backends:
        try:
            answer = run_job("hf2khc.check.contract_run", {"directory": str(directory)}, {"KERAS_BACKEND": backend})
        except ConversionError as error:
            faults = tuple(line for diagnostic in error.diagnostics for line in diagnostic.render().splitlines())
            findings.append(Finding("process", backend, FAILS, "the package cannot be checked", faults))
            continue
        subject[backend] = answer["subject"]
        findings += [Finding(**{**found, "faults": tuple(found["faults"])}) for found in answer["findings"]]
    return Contract(subject, tuple(findings))
