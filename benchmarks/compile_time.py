"""Seconds of one compile, or of torch.export alone, after all imports; a process for each measurement.

python -m benchmarks.compile_time JOB.json
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# What is timed. `export`: torch.export of the whole model; `export-cut`: of the model with its layers cut as the
# compiler cuts them; `compile`: everything from the config to Program[keras], twin included, without validation.
EXPORT, EXPORT_CUT, COMPILE = "export", "export-cut", "compile"


def seconds(what: str, model: str, overrides: Mapping[str, Any], task: str = "") -> float:
    """Time one of the three in a process of its own.

    Raises:
        subprocess.CalledProcessError: it fails.
    """
    with tempfile.TemporaryDirectory(prefix="hf2khc-bench-") as folder:
        job = Path(folder, "job.json")
        job.write_text(json.dumps({"what": what, "model": model, "overrides": dict(overrides), "task": task}))
        environment = {**os.environ, "KERAS_BACKEND": "torch"}
        module = [sys.executable, "-m", "benchmarks.compile_time", str(job)]
        subprocess.run(module, env=environment, check=True, capture_output=True, text=True)
        return float(Path(f"{job}.result").read_text())


def _measure(what: str, model: str, overrides: dict[str, Any], task: str) -> float:
    # Importing the driver imports torch, transformers and keras: that is not what is timed.
    from hf2khc.capture.build import build_meta, materialise
    from hf2khc.capture.export import export
    from hf2khc.capture.inputs import input_spec, trace_sizes
    from hf2khc.capture.source import open_source
    from hf2khc.capture.truncate import truncate
    from hf2khc.driver.compile import compile_model
    from hf2khc.driver.twin_worker import TwinWorker

    source = open_source(model, random_init=True, overrides=overrides, task=task or None)
    if what == COMPILE:
        with TwinWorker() as twin:
            twin.wait_until_ready()
            began = time.perf_counter()
            compile_model(source, twin, validate=False)
            return time.perf_counter() - began
    module = build_meta(source.config, source.model_class)
    if what == EXPORT_CUT:
        truncate(module)
    materialise(module)
    spec = input_spec(module)
    sizes = trace_sizes(module, spec)
    began = time.perf_counter()
    export(module, spec, sizes)
    return time.perf_counter() - began


if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text())
    Path(f"{sys.argv[1]}.result").write_text(str(_measure(job["what"], job["model"], job["overrides"], job["task"])))
