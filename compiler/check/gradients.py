"""The gradients of both models in float64, in one process: both run on torch.

The gradient of the package is taken with respect to the transformers model's own parameters: its variables are
computed from them as the weight map says, and the derivative goes through that as well. So a transposed or split kernel
needs no rule of its own, and tied weights get the sum of what every use contributes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf2khc.check.cases import Inputs, load_arrays
from hf2khc.check.gradient_report import BOUND, Gradients
from hf2khc.check.precision import at_least_float64
from hf2khc.check.reference import leaves, load_model, widen
from hf2khc.check.run import keras, load
from hf2khc.check.signature import compared_rows, package_inputs
from hf2khc.ir.float64 import float64
from hf2khc.process import serve

Tensors = Mapping[str, torch.Tensor]
# A key's bias adds the same to every score, so softmax leaves it a gradient of 0. What rounding makes of that is
# compared with this share of the largest gradient of the model.
NEGLIGIBLE = 1e-6


class Cotangents:
    """What the derivative of every output is weighed with: random numbers, zero where outputs are not compared."""

    def __init__(self, signature: Mapping[str, Any], inputs: Inputs, seed: int = 0):
        self._signature, self._inputs = signature, inputs
        self._random = np.random.default_rng(seed)
        self._chosen: dict[str, torch.Tensor] = {}
        self._weights: dict[str, torch.Tensor] = {}

    def of_transformers(self, outputs: Tensors) -> torch.Tensor:
        """The weighed sum over transformers' outputs, which decide what is compared."""
        total = torch.zeros((), dtype=torch.float64)
        for key, entry in self._signature["outputs"].items():
            if not (outputs[key].is_floating_point() and outputs[key].requires_grad):
                continue
            value = outputs[key].permute(entry["permute"]) if "permute" in entry else outputs[key]
            rows = torch.from_numpy(compared_rows(self._signature, entry, self._inputs, tuple(value.shape)))
            self._chosen[key] = rows & torch.isfinite(value.detach())
            chosen = value[self._chosen[key]]
            # Every output weighs the same, however large its numbers are.
            scale = float(chosen.detach().abs().max()) or 1.0
            self._weights[key] = torch.from_numpy(self._random.standard_normal(len(chosen))) / scale
            total = total + (chosen * self._weights[key]).sum()
        return total

    def of_package(self, value: Any) -> torch.Tensor:
        """The same sum over the package's outputs."""
        total = torch.zeros((), dtype=torch.float64)
        for key, chosen in self._chosen.items():
            output = value[self._signature["outputs"][key]["name"]] if isinstance(value, Mapping) else value
            total = total + (output[chosen] * self._weights[key]).sum()
        return total


def _transformers_gradients(model: Any, inputs: Inputs, cotangents: Cotangents, parameters: Tensors) -> Tensors:
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in inputs.items()}
    with at_least_float64():
        total = cotangents.of_transformers(dict(leaves(model(**tensors, return_dict=True))))
        return _gradients(total, parameters)


def _gradients(total: torch.Tensor, parameters: Tensors) -> Tensors:
    """Of each parameter; zero for one that nothing depends on."""
    wanted = list(parameters.values())
    found = torch.autograd.grad(total, wanted, allow_unused=True) if total.requires_grad else [None] * len(wanted)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(parameters.items(), found, strict=True)
    }


def _package_gradients(
    model: Any, variables: Sequence[Mapping[str, Any]], inputs: Inputs, cotangents: Cotangents, state: Tensors,
    parameters: Tensors,
) -> Tensors:  # fmt: skip
    rows = {row["keras"]: row for row in variables}

    def value(variable: Any) -> Any:
        row = rows.get(variable.path)
        return variable.value if row is None else _filled(row, state)

    tensors = {name: keras.ops.convert_to_tensor(array) for name, array in inputs.items()}
    result, _ = model.stateless_call(
        [value(v) for v in model.trainable_variables], [value(v) for v in model.non_trainable_variables], tensors,
        training=False,
    )  # fmt: skip
    return _gradients(cotangents.of_package(result), parameters)


def _filled(row: Mapping[str, Any], state: Tensors) -> torch.Tensor:
    """The value of a variable: functions of the transforms are those of `keras.ops`, which torch differentiates."""
    names = ["x"] if len(row["sources"]) == 1 else [f"x{i}" for i in range(len(row["sources"]))]
    values = {name: state[path] for name, path in zip(names, row["sources"], strict=True)}
    functions = {name: getattr(keras.ops, name) for name in dir(keras.ops) if not name.startswith("_")}
    return eval(row["transform"], {"__builtins__": {}, "ops": keras.ops, **functions}, values)


def _frozen(model: Any, variables: Sequence[Mapping[str, Any]], trainable: set[str]) -> Iterator[str]:
    """Variables that no training would change, although transformers' parameters would be trained."""
    fixed = {variable.path for variable in model.non_trainable_variables}
    for row in variables:
        if row["keras"] in fixed and trainable.intersection(row["sources"]):
            yield f"{row['keras']} is not trainable, {', '.join(row['sources'])} is"


def _errors(ours: Tensors, theirs: Tensors) -> dict[str, float]:
    """Of each parameter the largest difference, relative to the largest magnitude of its gradient."""
    magnitudes = {name: float(gradient.abs().max()) for name, gradient in theirs.items()}
    least = NEGLIGIBLE * max(magnitudes.values(), default=0.0)
    found = {}
    for name, gradient in theirs.items():
        difference = float((ours[name] - gradient).abs().max())
        scale = max(magnitudes[name], least)
        found[name] = difference / scale if scale else difference
    return {name: error if np.isfinite(error) else float("inf") for name, error in found.items()}


def padding_rows(model: torch.nn.Module) -> dict[str, int]:
    """Rows of embeddings that torch never trains (`padding_idx`), by the parameter's path in the model."""
    found = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
            found[f"{path}.weight" if path else "weight"] = module.padding_idx
    return found


def _left_out(ours: Tensors, theirs: Tensors, rows: Mapping[str, int]) -> list[str]:
    """Takes rows that torch never trains out of the comparison, in place: Keras has no such rows."""
    left_out = []
    for name, row in rows.items():
        if name in theirs and not torch.allclose(ours[name][row], theirs[name][row], rtol=BOUND, atol=0.0):
            ours[name][row] = theirs[name][row]  # tied to an output, the row has a gradient all the same
            left_out.append(f"row {row} of {name}: torch's padding_idx keeps it from being trained, Keras trains it")
    return left_out


def _unique(state: Tensors) -> dict[str, torch.Tensor]:
    """Parameters with anything to differentiate, tied ones once, under the first of their paths."""
    found: dict[int, tuple[str, torch.Tensor]] = {}
    for path, value in state.items():
        if isinstance(value, torch.nn.Parameter) and value.is_floating_point() and value.numel():
            found.setdefault(id(value), (path, value))
    return dict(found.values())


def _wide(inputs: Inputs) -> Inputs:
    return {name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in inputs.items()}


def _work(job: dict[str, Any]) -> dict[str, Any]:
    torch.manual_seed(0)
    signature, inputs = job["signature"], load_arrays(Path(job["case"]))["case"]
    model = load_model(job["source"])
    widen(model)
    state = model.state_dict(keep_vars=True)
    trainable = {path for path, value in state.items() if value.requires_grad}
    parameters = _unique(state)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    cotangents = Cotangents(signature, inputs)
    theirs = _transformers_gradients(model, _wide(inputs), cotangents, parameters)
    with float64(), torch.enable_grad():
        package = load(Path(job["directory"]))
        arrays = _wide(package_inputs(signature, inputs))
        ours = _package_gradients(package, job["variables"], arrays, cotangents, state, parameters)
    frozen = list(_frozen(package, job["variables"], trainable))
    left_out = _left_out(ours, theirs, padding_rows(model))
    found = judge(_errors(ours, theirs), {n: p.numel() for n, p in parameters.items()}, frozen)
    return asdict(replace(found, left_out=tuple(left_out)))


def judge(errors: Mapping[str, float], sizes: Mapping[str, int], frozen: Sequence[str]) -> Gradients:
    """The verdict.

    Args:
        errors: of each parameter.
        sizes: elements of each parameter.
        frozen: what cannot be trained, one sentence each.
    """
    key: Callable[[str], float] = errors.__getitem__
    worst = max(errors, key=key, default="")
    wrong = [f"the gradient of {name} is off by {error:.1e}" for name, error in errors.items() if not error <= BOUND]
    problems = (*wrong, *frozen)
    largest = errors.get(worst, 0.0)
    return Gradients(
        len(errors), sum(sizes.values()), largest, worst, problems=problems, holds=bool(errors) and not problems
    )


if __name__ == "__main__":
    serve(_work)
