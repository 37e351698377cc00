"""Time of one compile, or of torch.export alone, after all imports; a process for each measurement.

python -m benchmarks.compile_time JOB.json
"""

import time
from collections.abc import Mapping
from typing import Any, Self

from benchmarks.job import JobFailed, run_job, serve
from benchmarks.machine import cpu_seconds

# What is timed. `export`: torch.export of the whole model; `export-cut`: of the model with its layers cut as the
# compiler cuts them; `compile`: everything from the config to Program[keras], twin included, without validation.
EXPORT, EXPORT_CUT, COMPILE = "export", "export-cut", "compile"


def spent(what: str, model: str, overrides: Mapping[str, Any], task: str = "") -> dict[str, float]:
    """Time one of the three in a process of its own: `seconds`, and `cpu_seconds` of all processes together.

    Where other work keeps the machine busy, the second is the one to compare.

    Raises:
        SystemExit: it fails, with the end of what it printed.
    """
    job = {"what": what, "model": model, "overrides": dict(overrides), "task": task}
    try:
        return run_job("benchmarks.compile_time", job, "torch")
    except JobFailed as error:
        raise SystemExit(f"{what} of {model} fails:\n{str(error)[-3000:]}") from error


def _measure(what: str, model: str, overrides: dict[str, Any], task: str) -> dict[str, float]:
    # Importing the driver imports torch, transformers and keras: that is not what is timed.
    from hf2khc.capture.build import build_meta, materialise
    from hf2khc.capture.export import export
    from hf2khc.capture.inputs import input_spec, trace_sizes
    from hf2khc.capture.source import open_source
    from hf2khc.capture.truncate import truncate
    from hf2khc.driver.compile import compile_model
    from hf2khc.driver.twin_worker import TwinWorker
    from hf2khc.forking.servers import TORCH, Servers
    from hf2khc.process import start_with

    source = open_source(model, random_init=True, overrides=overrides, task=task or None)
    if what == COMPILE:
        with Servers() as children, start_with(children), TwinWorker() as twin:
            children.wait_until_ready(TORCH)
            with _Clock() as clock:
                compile_model(source, twin, validate=False)
            return clock.spent
    module = build_meta(source.config, source.model_class)
    if what == EXPORT_CUT:
        truncate(module)
    materialise(module)
    spec = input_spec(module)
    sizes = trace_sizes(module, spec)
    with _Clock() as clock:
        export(module, spec, sizes)
    return clock.spent


class _Clock:
    """Wall-clock seconds of a block, and the processor's seconds for this process and those below it."""

    def __enter__(self) -> Self:
        self._began, self._cpu = time.perf_counter(), cpu_seconds()
        return self

    def __exit__(self, *exception: object) -> None:
        self.spent = {"seconds": time.perf_counter() - self._began, "cpu_seconds": cpu_seconds() - self._cpu}


if __name__ == "__main__":
    serve(lambda job: _measure(**job))
