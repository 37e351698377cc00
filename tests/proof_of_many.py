"""The proof of several packages in one process per backend, since starting a process is what takes long.

As a program (`python proof_of_many.py JOBS.json`): runs the packages named there under the Keras backend in force.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hf2khc.check.cases import load_arrays, save_arrays
from hf2khc.check.proof import OutputError


class Package:
    """A converted package beside the model it came from, with the inputs of its proof.

    Args:
        model: in float32.
        conversion: of `convert`.
    """

    def __init__(self, model: Any, conversion: Any):
        from hf2khc.driver.proof import proof_cases

        self.model, self.conversion = model, conversion
        self.directory = conversion.directory
        source = SimpleNamespace(config=model.config)
        self.cases = proof_cases(source, conversion.compiled.captured, seed=3)

    def job(self, backend: str) -> dict[str, str]:
        """What the backend's process is told."""
        cases = self.directory.with_name(f"{self.directory.name}-cases.npz")
        save_arrays(cases, self.cases)
        outputs = self.directory.with_name(f"{self.directory.name}-{backend}.npz")
        signature = json.dumps(self.conversion.signature)
        return {"directory": str(self.directory), "cases": str(cases), "outputs": str(outputs), "signature": signature}


def reference(package: Package) -> tuple[Mapping, Mapping]:
    """The model's outputs in float32 and in float64, by case."""
    import copy

    from hf2khc.check.reference import outputs, outputs_float64, widen

    single = {case: outputs(package.model, inputs) for case, inputs in package.cases.items()}
    wide = copy.deepcopy(package.model)
    widen(wide)
    return single, {case: outputs_float64(wide, inputs) for case, inputs in package.cases.items()}


def prove(packages: Mapping[str, Package], references: Mapping[str, tuple], backend: str, scratch: Path) -> dict:
    """The rows of each package's proof on one backend; an error as text where it cannot be run."""
    jobs = {name: package.job(backend) for name, package in packages.items()}
    path = scratch / f"{backend}.json"
    path.write_text(json.dumps(jobs), encoding="utf-8")
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    run = subprocess.run([sys.executable, __file__, str(path)], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    problems = json.loads(path.with_suffix(".answer").read_text(encoding="utf-8"))
    return {
        name: problems[name] or _rows(package, *references[name], backend, Path(jobs[name]["outputs"]))
        for name, package in packages.items()
    }


def _rows(package: Package, theirs: Mapping, exact: Mapping, backend: str, file: Path) -> list[OutputError]:
    from hf2khc.check.compare import compare

    signature, ours = package.conversion.signature, load_arrays(file)
    rows = []
    for case, inputs in package.cases.items():
        assert set(exact[case]) == {*signature["outputs"], *(set(signature["omitted"]) & set(exact[case]))}
        rows += compare(signature, case, backend, inputs, ours[case], theirs[case], exact[case])
    return rows


def main(path: str) -> None:
    """Run every job; the answer says what went wrong, nothing where all is well."""
    from hf2khc.check import run
    from hf2khc.diagnostics import ConversionError

    problems = {}
    for name, job in json.loads(Path(path).read_text(encoding="utf-8")).items():
        try:
            run._work(job)
            problems[name] = ""
        except ConversionError as error:
            problems[name] = str(error)
    Path(path).with_suffix(".answer").write_text(json.dumps(problems), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
