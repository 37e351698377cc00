"""All checks of the contract on one Keras backend, in one process: starting one costs more than most checks."""

import re
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hf2khc.check.contract import FAILS, HOLDS, SKIPPED, Finding
from hf2khc.check.contract_verdict import Broken, Skipped
from hf2khc.process import import_keras, serve

import_keras()
import keras  # noqa: E402

from hf2khc.check.contract_dropout import dropout  # noqa: E402
from hf2khc.check.contract_precision import mixed_precision  # noqa: E402
from hf2khc.check.contract_quantization import quantization  # noqa: E402
from hf2khc.check.contract_running import compiled, lengths  # noqa: E402
from hf2khc.check.contract_saving import config, preset, saved_model, saved_weights, shipped_preset  # noqa: E402
from hf2khc.check.contract_subject import Subject, subject_of  # noqa: E402
from hf2khc.check.contract_tuning import lora  # noqa: E402

Check = Callable[[Subject], str]
CHECKS: dict[str, Check] = {
    "get_config round trip": config,
    "save_to_preset, from_preset": preset,
    "the package's own preset": shipped_preset,
    ".keras round trip": saved_model,
    ".weights.h5 round trip": saved_weights,
    "variable lengths": lengths,
    "mixed_bfloat16": mixed_precision,
    "dropout": dropout,
    "enable_lora": lora,
    "quantize int8": quantization,
    "predict and fit, compiled": compiled,
}
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def run_check(name: str, check: Check, subject: Subject) -> Finding:
    """The finding of one check; an error that generated code raises is a fault of it."""
    start = time.perf_counter()
    verdict, detail = HOLDS, ""
    faults: tuple[str, ...] = ()
    try:
        detail = check(subject)
    except Broken as broken:
        verdict, detail, faults = FAILS, broken.detail, broken.faults
    except Skipped as skipped:
        verdict, detail = SKIPPED, str(skipped)
    except Exception as error:  # generated code may fail in any way
        lines = _COLOURS.sub("", f"{type(error).__name__}: {error}").strip().splitlines()
        verdict, detail, faults = FAILS, "the check ended with an error", tuple(line for line in lines if line.strip())
    return Finding(name, keras.backend.backend(), verdict, detail, faults, time.perf_counter() - start)


def _work(job: dict[str, Any]) -> dict[str, Any]:
    warnings.filterwarnings("ignore")
    keras.config.set_floatx("float32")
    subject = subject_of(Path(job["directory"]))
    findings = []
    for name, check in CHECKS.items():
        keras.utils.set_random_seed(0)
        findings.append(asdict(run_check(name, check, subject)))
    return {"subject": subject.description, "findings": findings}


if __name__ == "__main__":
    serve(_work)
