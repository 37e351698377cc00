"""The package's side of a proof, under one Keras backend. Runs in a process of its own, on the CPU, in float32."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hf2khc.check.cases import load_arrays, save_arrays
from hf2khc.check.proof import CACHED, CANNOT_DECODE, Run
from hf2khc.check.signature import fits, package_inputs, package_outputs
from hf2khc.diagnostics import fail
from hf2khc.package import broken_package, import_package, load_preset
from hf2khc.process import import_keras, peak_memory, serve

import_keras()
import keras  # noqa: E402

from hf2khc.check.decoding import decoded, decodes  # noqa: E402


def load(directory: Path) -> Any:
    """The package's model with its weights, as a user loads it.

    Raises:
        ConversionError: `package`, when it cannot be loaded.
    """
    import_package(directory)
    try:
        return load_preset(directory)
    except Exception as error:  # generated code may fail in any way
        raise broken_package("from_preset fails", error, directory / "preset") from error


def _call(directory: Path, model: Any, inputs: dict[str, Any]) -> Any:
    """The model's result as numpy arrays."""
    tensors = {name: keras.ops.convert_to_tensor(array) for name, array in inputs.items()}
    try:
        value = model(tensors, training=False)
    except Exception as error:  # generated code may fail in any way
        raise broken_package("the model cannot be called", error, directory) from error
    value = keras.tree.map_structure(keras.ops.convert_to_numpy, value)
    _check_shapes(directory, model, value)
    return value


def _check_shapes(directory: Path, model: Any, value: Any) -> None:
    """Compares the shapes of results with those that the model says they have.

    Raises:
        ConversionError: `output-shape`, where a layer's `compute_output_shape` is wrong.
    """
    said = [tuple(tensor.shape) for tensor in keras.tree.flatten(model.output)]
    found = [array.shape for array in keras.tree.flatten(value)]
    for shape, expected in zip(found, said, strict=True):
        if not fits(shape, expected):
            message = f"a result of shape {shape} is said to have {expected}"
            raise fail("output-shape", message, location=str(directory), hint="a layer's compute_output_shape is wrong")


def _decoded(directory: Path, model: Any, inputs: dict[str, Any]) -> Any:
    try:
        return decoded(model, inputs)
    except Exception as error:  # generated code may fail in any way
        raise broken_package(CANNOT_DECODE, error, directory) from error


def _work(job: dict[str, Any]) -> dict[str, Any]:
    keras.config.set_floatx("float32")
    _full_precision()
    directory, start = Path(job["directory"]), time.perf_counter()
    model = load(directory)
    loaded = time.perf_counter()
    cases, signature = load_arrays(Path(job["cases"])), json.loads(job["signature"])
    found = {}
    for case, inputs in cases.items():
        given = package_inputs(signature, inputs)
        found[case] = package_outputs(signature, _call(directory, model, given))
        if decodes(model, given):
            found[case + CACHED] = package_outputs(signature, _decoded(directory, model, given))
    save_arrays(Path(job["outputs"]), found)
    run = Run(
        keras.backend.backend(), loaded - start, time.perf_counter() - loaded, peak_memory(), len(model.weights),
        model.count_params(),
    )  # fmt: skip
    return asdict(run)


def _full_precision() -> None:
    """Matrix products in full float32, which jax does not promise by default."""
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")


if __name__ == "__main__":
    serve(_work)
