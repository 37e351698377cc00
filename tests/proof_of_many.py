"""The proof of several packages in one process per backend, since starting a process is what takes long.

As a program (`python proof_of_many.py JOBS.json`): runs the packages named there under the Keras backend in force.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hf2khc.check.cases import load_arrays
from hf2khc.check.proof import OutputError


def start(folder: Path, names: Sequence[str], backend: str) -> subprocess.Popen:
    """Run the packages that `convert_many` wrote to a folder on one backend."""
    jobs = {}
    for name in names:
        signature = json.dumps(json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["signature"])
        files = {"cases": str(folder / f"{name}-cases.npz"), "outputs": str(folder / f"{name}-{backend}.npz")}
        jobs[name] = {"directory": str(folder / name), "signature": signature, **files}
    path = folder / f"{backend}.json"
    path.write_text(json.dumps(jobs), encoding="utf-8")
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    log = (folder / f"log-{backend}").open("wb")
    return subprocess.Popen([sys.executable, __file__, str(path)], env=environment, stdout=log, stderr=log)


def rows(
    folder: Path, name: str, backend: str, theirs: Mapping | None = None, exact: Mapping | None = None
) -> list[OutputError]:
    """What the proof of a package says; by default against the model it was made from.

    Raises:
        AssertionError: the backend cannot run the package.
    """
    from hf2khc.check.compare import compare

    problem = json.loads((folder / f"{backend}.answer").read_text(encoding="utf-8"))[name]
    assert not problem, problem
    signature = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["signature"]
    cases, ours = load_arrays(folder / f"{name}-cases.npz"), load_arrays(folder / f"{name}-{backend}.npz")
    theirs = load_arrays(folder / f"{name}-float32.npz") if theirs is None else theirs
    exact = load_arrays(folder / f"{name}-float64.npz") if exact is None else exact
    found: list[OutputError] = []
    for case, inputs in cases.items():
        assert set(exact[case]) - set(signature["omitted"]) == set(signature["outputs"])
        found += compare(signature, case, backend, inputs, ours[case], theirs[case], exact[case])
    return found


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
