"""The largest absolute difference between a package and transformers, both in float32, as a user meets it.

python -m benchmarks.difference JOB.json
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

BATCH, LENGTH = 4, 48


def largest_difference(package: Path, checkpoint: Path, report: Mapping[str, Any]) -> dict[str, float]:
    """By output. The package is called as `hf2khc.load` gives it, on torch, with right padding.

    Raises:
        subprocess.CalledProcessError: either model cannot be run.
    """
    with tempfile.TemporaryDirectory(prefix="hf2khc-bench-") as folder:
        job = Path(folder, "job.json")
        vocabulary = report["sizes"].get("vocab_size", 2)
        content = {"package": str(package), "checkpoint": str(checkpoint), "class": report["source"]["class"]}
        job.write_text(json.dumps({**content, "vocabulary": vocabulary}))
        environment = {**os.environ, "KERAS_BACKEND": "torch"}
        module = [sys.executable, "-m", "benchmarks.difference", str(job)]
        subprocess.run(module, env=environment, check=True, capture_output=True)
        return json.loads(Path(f"{job}.result").read_text())


def token_inputs(vocabulary: int) -> dict[str, np.ndarray]:
    """Random tokens of rows of different lengths, and their mask."""
    random = np.random.default_rng(0)
    lengths = np.array([LENGTH, LENGTH // 2, 7, 1])[:, None]
    mask = (np.arange(LENGTH)[None, :] < lengths).astype("int64")
    return {"input_ids": random.integers(0, vocabulary, (BATCH, LENGTH)) * mask, "attention_mask": mask}


def _measure(job: Mapping[str, Any]) -> dict[str, float]:
    # keras reads its backend when it is first imported, and the parent needs neither keras nor torch.
    import keras
    import torch
    import transformers

    import hf2khc
    from hf2khc.check.signature import package_inputs, package_outputs

    inputs = token_inputs(job["vocabulary"])
    model = getattr(transformers, job["class"]).from_pretrained(job["checkpoint"], dtype=torch.float32).eval()
    with torch.no_grad():
        theirs = model(**{name: torch.from_numpy(array) for name, array in inputs.items()}, return_dict=True)
    signature = json.loads(Path(job["package"], "signature.json").read_text())
    value = hf2khc.load(job["package"])(package_inputs(signature, inputs), training=False)
    ours = package_outputs(signature, keras.tree.map_structure(keras.ops.convert_to_numpy, value))
    mask = inputs["attention_mask"].astype(bool)
    return {name: _largest(array, theirs[name].numpy(), mask) for name, array in ours.items()}


def _largest(ours: np.ndarray, theirs: np.ndarray, mask: np.ndarray) -> float:
    """Over the rows whose mask is 1, where the output has rows of tokens."""
    apart = np.abs(ours - theirs)
    return float((apart[mask] if apart.shape[:2] == mask.shape else apart).max())


if __name__ == "__main__":
    Path(f"{sys.argv[1]}.result").write_text(json.dumps(_measure(json.loads(Path(sys.argv[1]).read_text()))))
