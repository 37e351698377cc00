"""Converts several tiny models in one process: `python convert_many.py FOLDER NAME... [--sources NAME...]`.

In FOLDER, per model: the package `NAME/`, and `NAME.json` with what was found out or the error that ended it; for the
proof `NAME-cases.npz`, and the outputs of the model itself, `NAME-float32.npz` and `NAME-float64.npz`. For a name
behind `--sources` only the printed text, in `NAME-sources.json`.
"""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from forked_children import ForkedChildren

from hf2khc.check.cases import save_arrays
from hf2khc.process import start_with


def start(folder: Path, names: Sequence[str], sources: Sequence[str], seed: int) -> subprocess.Popen:
    """The process, under a seed of Python's hashes."""
    command = [sys.executable, __file__, str(folder), *names, "--sources", *sources]
    log = (folder / f"log-{seed}").open("wb")
    return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONHASHSEED": str(seed)})


def convert(folder: Path, name: str) -> None:
    """One model: its package, and what its proof needs."""
    from float64_reference import noisy_model
    from tiny_models import MODELS

    import hf2khc
    from hf2khc.check.reference import outputs, outputs_float64, widen
    from hf2khc.driver.proof import proof_cases

    model = noisy_model(*MODELS[name])
    model.config.name_or_path = name
    try:
        done = hf2khc.convert(model, folder / name, check=False)
    except hf2khc.ConversionError as error:
        (folder / f"{name}.json").write_text(json.dumps({"error": str(error)}), encoding="utf-8")
        return
    found = {"generalises": done.compiled.generalises, "sources": dict(done.sources), "signature": dict(done.signature)}
    (folder / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")
    cases = proof_cases(SimpleNamespace(config=model.config, examples=()), done.compiled.captured, seed=3)
    save_arrays(folder / f"{name}-cases.npz", cases)
    save_arrays(folder / f"{name}-float32.npz", {case: outputs(model, inputs) for case, inputs in cases.items()})
    wide = copy.deepcopy(model)
    widen(wide)
    save_arrays(folder / f"{name}-float64.npz", {case: outputs_float64(wide, inputs) for case, inputs in cases.items()})


def print_sources(folder: Path, name: str) -> None:
    """The text of a package alone."""
    from float64_reference import noisy_model
    from tiny_models import MODELS

    import hf2khc

    model = noisy_model(*MODELS[name])
    model.config.name_or_path = name
    done = hf2khc.convert(model, weights=False, check=False)
    (folder / f"{name}-sources.json").write_text(json.dumps(dict(done.sources)), encoding="utf-8")


def main(folder: Path, arguments: Sequence[str]) -> None:
    """The command line."""
    at = list(arguments).index("--sources")
    with ForkedChildren() as forks, start_with(forks):
        for name in arguments[:at]:
            convert(folder, name)
        for name in arguments[at + 1 :]:
            print_sources(folder, name)


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "torch"
    main(Path(sys.argv[1]), sys.argv[2:])
