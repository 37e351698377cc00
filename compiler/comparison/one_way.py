"""One way on one model, and what came of it. Runs in a process of its own."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hf2khc.check.proof import Proof
from hf2khc.diagnostics import ConversionError
from hf2khc.process import hide_other_backends, serve

STATIC, DYNAMIC = "static", "dynamic"
UNMAPPED = "signature"  # the code of the diagnostic that names outputs which the package does not have


def _work(job: dict[str, Any]) -> dict[str, Any]:
    hide_other_backends()
    ways = {STATIC: _static, DYNAMIC: _dynamic}
    try:
        return ways[job["way"]](job)
    except ConversionError as error:
        return {"error": asdict(error.diagnostics[0])}


def _static(job: Mapping[str, Any]) -> dict[str, Any]:
    from hf2khc.static.convert import convert_static, prove_static

    out = Path(job["output"])
    made = convert_static(job["directory"], out, trust_remote_code=job["trust_remote_code"])
    built = made.built
    return {
        "made": built.kind,
        "placed": {path: list(names) for path, names in built.placed.items()},
        "layers": built.layers,
        "parameters": built.parameters,
        "values": _values(out),
        **_cost(made.report),
        **_proof(job, lambda source: prove_static(out, source, built.signature, job["backends"])),
    }


def _dynamic(job: Mapping[str, Any]) -> dict[str, Any]:
    import hf2khc
    from hf2khc.driver.proof import prove_package
    from hf2khc.static.build import layer_classes
    from hf2khc.weights.layout import build

    out = Path(job["output"])
    made = hf2khc.convert(job["directory"], out, trust_remote_code=job["trust_remote_code"], check=False)
    model, found = build(out), made.weight_map
    return {
        "made": "compiled",
        "placed": {row.keras: list(row.hf) for row in found.rows if row.hf},
        "explained": {row.hf: row.reason for row in found.not_consumed},
        "layers": layer_classes(model),
        "parameters": model.count_params(),
        "values": _values(out),
        **_cost(made.report),
        **_proof(job, lambda source: prove_package(out, source, made.compiled, job["backends"])),
    }


def _values(directory: Path) -> dict[str, Any]:
    """The constructor arguments of the package's backbone."""
    config: dict[str, Any] = json.loads((directory / "preset" / "config.json").read_text(encoding="utf-8"))["config"]
    return config


def _cost(report: Any) -> dict[str, Any]:
    return {
        "seconds": sum(stage.seconds for stage in report.stages),
        "peak_bytes": max(stage.peak_bytes for stage in report.stages),
    }


def _proof(job: Mapping[str, Any], prove: Any) -> dict[str, Any]:
    """The rows of the proof; an error in it is one of the proof, and the package is there."""
    from hf2khc.capture.source import open_source

    try:
        found: Proof = prove(open_source(job["directory"], trust_remote_code=job["trust_remote_code"]))
    except ConversionError as error:
        return {"proved": False, "rows": [], "problems": [diagnostic.message for diagnostic in error.diagnostics]}
    problems = [each.message for each in found.diagnostics]
    lost = [name for each in found.diagnostics if each.code == UNMAPPED for name in each.excerpt.splitlines()]
    return {"proved": found.holds, "rows": [asdict(row) for row in found.rows], "problems": problems, "lost": lost}


if __name__ == "__main__":
    serve(_work)
