"""The proof: reference and package run in processes of their own, and every output is compared."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hf2khc.check.cases import Inputs, load_arrays, save_arrays
from hf2khc.check.compare import compare, explain
from hf2khc.check.contradiction import contradiction
from hf2khc.check.proof import CACHED, OutputError, Proof, Run, Source
from hf2khc.diagnostics import ConversionError, Diagnostic
from hf2khc.process import run_job

BACKENDS = ("jax", "tensorflow", "torch")


def prove(
    directory: Path,
    source: Source,
    cases: Mapping[str, Inputs],
    signature: Mapping[str, Any] | None = None,
    backends: Sequence[str] = BACKENDS,
) -> Proof:
    """Compare a package with the model it came from.

    Args:
        directory: the package, with its weights.
        source: the transformers model.
        cases: input sets by name; each maps transformers' keyword arguments to arrays.
        signature: the content of `signature.json`; None reads it from the directory.
        backends: Keras backends to run.

    Returns:
        The proof. It does not hold when an output differs, is missing, or when a backend cannot run the package; the
        diagnostics say which.

    Raises:
        ConversionError: `reference`, when the transformers model itself cannot be run.
    """
    if signature is None:
        signature = json.loads((directory / "signature.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="hf2khc-proof-") as scratch:
        folder = Path(scratch)
        save_arrays(folder / "cases.npz", cases)
        runs = [_run_reference(source, folder)]
        theirs, exact = load_arrays(folder / "float32.npz"), load_arrays(folder / "float64.npz")
        problems = _unaccounted(signature, exact)
        rows: list[OutputError] = []
        reason = None
        for backend in backends:
            try:
                runs.append(_run_package(directory, signature, backend, folder))
            except ConversionError as error:
                problems += [_on(backend, diagnostic) for diagnostic in error.diagnostics]
                continue
            ours = load_arrays(folder / f"{backend}.npz")
            for case, inputs in cases.items():
                for name in (case, case + CACHED):
                    if name in ours:
                        rows += compare(signature, name, backend, inputs, ours[name], theirs[case], exact[case])
            if not all(row.holds for row in rows):
                reason = reason or contradiction(signature, cases, ours, exact)
    problems += [reason] if reason else []
    problems += [explain(row) for row in rows if not row.holds]
    if not rows and not problems:
        problems.append(Diagnostic("parity", "nothing was compared"))
    return Proof(not problems, tuple(rows), tuple(runs), tuple(problems))


def _run_reference(source: Source, folder: Path) -> Run:
    job = {
        "source": asdict(source), "cases": str(folder / "cases.npz"),
        "float32": str(folder / "float32.npz"), "float64": str(folder / "float64.npz"),
    }  # fmt: skip
    return Run(**run_job("hf2khc.check.reference", job))


def _run_package(directory: Path, signature: Mapping[str, Any], backend: str, folder: Path) -> Run:
    job = {
        "directory": str(directory), "signature": json.dumps(signature), "cases": str(folder / "cases.npz"),
        "outputs": str(folder / f"{backend}.npz"),
    }  # fmt: skip
    return Run(**run_job("hf2khc.check.run", job, {"KERAS_BACKEND": backend}))


def _unaccounted(signature: Mapping[str, Any], exact: Mapping[str, Inputs]) -> list[Diagnostic]:
    """Tensor leaves of transformers' output that the signature neither maps nor lists as omitted."""
    known = [*signature["outputs"], *signature.get("omitted", {})]
    found = {key for outputs in exact.values() for key in outputs}
    lost = sorted(key for key in found if not any(key == name or key.startswith(f"{name}.") for name in known))
    message = "outputs of transformers that signature.json neither maps nor omits"
    return [Diagnostic("signature", message, excerpt="\n".join(lost))] if lost else []


def _on(backend: str, diagnostic: Diagnostic) -> Diagnostic:
    return Diagnostic(
        diagnostic.code, diagnostic.message, f"{backend}: {diagnostic.location}", diagnostic.excerpt, diagnostic.hint
    )
