"""One spec converted and proved, as a plain record; an error is a result as well."""

import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hf2khc
from benchmarks.machine import cpu_seconds
from benchmarks.zoo.specs import Spec, build, inputs
from hf2khc.check.contract import FAILS, Contract, verify
from hf2khc.diagnostics import ConversionError, Diagnostic
from hf2khc.driver.stages import StageEvent

# What the code of the first diagnostic says about a conversion; any other code is an error.
STATUS = {
    "proof-failed": "wrong",
    "miscompile": "wrong",
    "parity": "wrong",
    "parameter-count": "wrong",
    "unsupported-op": "unsupported-op",
    "not-capturable": "not-capturable",
    "inputs-unknown": "not-capturable",
    "cannot-build": "not-capturable",
}
LONGEST_TEXT = 600
# Stages before the weights: what compiling takes.
COMPILE_STAGES = ("capture", "passes", "validate", "generalise", "write")


def converted(spec: Spec, backends: Sequence[str]) -> dict[str, Any]:
    """Convert a spec through the public interface, prove it on the backends given and verify it on the first.

    Returns:
        JSON-able: status, diagnostic where there is one, largest error, idioms, residue, what breaks KerasHub's
        contract, seconds per stage, and what compiling takes of one core (`compile_cpu_seconds`; other work beside it
        does not show there).
    """
    stages: dict[str, float] = {}
    compiling: dict[str, float] = {}
    began = cpu_seconds()

    def note(event: StageEvent) -> None:
        if event.record is not None:
            stages[event.name] = round(event.record.seconds, 2)
            if event.name == COMPILE_STAGES[-1]:
                compiling["compile_cpu_seconds"] = round(cpu_seconds() - began, 2)

    def work(package: Path) -> dict[str, Any]:
        found = _success(_convert(spec, package, backends, note))
        return {**found, "contract": _broken(verify(package, backends[:1]))}

    return {**recorded(spec, work), "backends": list(backends), "stages": stages, **compiling}


def recorded(spec: Spec, work: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """What `work` finds of a spec, given where to write the package, or its error, as a record."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="zoo-package-") as folder:
        try:
            found = work(Path(folder, "package"))
        except ConversionError as error:
            found = _failure(error.diagnostics)
        except Exception as error:  # what no diagnostic tells is a fault of the compiler, and a result
            found = _crash(error)
    seconds = round(time.perf_counter() - began, 1)
    return {"name": spec.name, "family": spec.family, "head": spec.head, **found, "seconds": seconds}


def _convert(
    spec: Spec, package: Path, backends: Sequence[str], note: Callable[[StageEvent], None]
) -> "hf2khc.Conversion":
    """The conversion, with the spec's own inputs where nothing else says what the model takes."""
    model = build(spec)
    try:
        return hf2khc.convert(model, package, backends=backends, on_event=note)
    except ConversionError as error:
        # Inputs that the config suggests and the model does not take show in the capture.
        if STATUS.get(error.diagnostics[0].code) != "not-capturable":
            raise
    examples = (inputs(spec), inputs(spec, padded=True))
    return hf2khc.convert(model, package, backends=backends, on_event=note, inputs=examples)


def _success(done: "hf2khc.Conversion") -> dict[str, Any]:
    report = done.report
    counts: Counter[str] = Counter()
    for found in report.idioms.values():
        counts.update(found)
    return {
        "status": "exact" if report.proved else "error",
        "error": _largest(report.errors),
        "bound": max((row.bound for row in report.errors), default=0.0),
        "generalises": report.config_generalises,
        "reasons": [_without_folders(str(reason))[:LONGEST_TEXT] for reason in report.reasons],
        "notes": [_without_folders(str(note))[:LONGEST_TEXT] for note in report.notes],
        "idioms": dict(sorted(counts.items())),
        "residue": dict(report.residue),
        "parameters": report.parameters["transformers"],
        "core_layer_share": report.code["core_layer_share"],
    }


def _broken(contract: Contract) -> dict[str, str]:
    """What of KerasHub's contract fails, by check: in what way, and the first of the faults."""
    failing = [finding for finding in contract.findings if finding.verdict == FAILS]
    return {found.check: _local(": ".join((found.detail, *found.faults[:1]))) for found in failing}


def _largest(errors: Sequence[Any]) -> float | None:
    return max((row.ours for row in errors if row.ours is not None), default=None)


def _failure(diagnostics: Sequence[Diagnostic]) -> dict[str, Any]:
    first = diagnostics[0]
    status = STATUS.get(first.code, "error")
    if first.code == "proof-failed" and not first.excerpt:
        # No comparison failed: a backend could not run the package, and the next diagnostic says why.
        status, first = "error", (*diagnostics[1:], first)[0]
    return {"status": status, "diagnostic": _plain(first)}


def _plain(diagnostic: Diagnostic) -> dict[str, str]:
    return {
        "code": diagnostic.code, "message": _local(diagnostic.message), "location": _local(diagnostic.location),
        "excerpt": _local(diagnostic.excerpt),
    }  # fmt: skip


def _local(text: str) -> str:
    """The text without this machine's folders, and not too long."""
    text = _without_folders(text)
    # Both ends say something: what it is about, and where a traceback or a comparison ends.
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT // 3]} ... {text[-LONGEST_TEXT * 2 // 3 :]}"


def _without_folders(text: str) -> str:
    import torch

    roots = Path(torch.__file__).parents[1], Path(hf2khc.__file__).resolve().parents[1], Path(tempfile.gettempdir())
    for root in roots:
        text = text.replace(f"{root}/", "")
    return text


def _crash(error: Exception) -> dict[str, Any]:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    ours = [
        f for f in traceback.extract_tb(error.__traceback__) if "/compiler/" in f.filename or "/passes/" in f.filename
    ]
    places = [f"{f.filename}:{f.lineno}" for f in (*ours[-1:], frame)]
    diagnostic = Diagnostic("crash", f"{type(error).__name__}: {error}", places[0], "\n".join(dict.fromkeys(places)))
    return {"status": "error", "diagnostic": _plain(diagnostic)}


def ended(spec: Spec, code: str, message: str, seconds: float, backends: Sequence[str]) -> dict[str, Any]:
    """The record of a conversion that was ended from outside, or died."""
    diagnostic: Mapping[str, str] = {"code": code, "message": message, "location": "", "excerpt": ""}
    return {
        "name": spec.name, "family": spec.family, "head": spec.head, "status": "error", "diagnostic": diagnostic,
        "backends": list(backends), "seconds": round(seconds, 1), "stages": {},
    }  # fmt: skip
