"""The transformers side of a proof: outputs in float32 and in float64. Runs in a process of its own."""

import importlib
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from hf2khc.check.as_stored import as_stored
from hf2khc.check.cases import Inputs, load_arrays, save_arrays
from hf2khc.check.empty_rows import MeanOfAll
from hf2khc.check.precision import at_least_float64
from hf2khc.check.proof import Run
from hf2khc.diagnostics import fail
from hf2khc.process import peak_memory, serve


def load_model(source: Mapping[str, Any], restored: list[str] | None = None) -> torch.nn.Module:
    """The model of a `Source` in float32, in evaluation mode, without caches, its weights as they are stored.

    Args:
        source: the fields of a `Source`.
        restored: is told the parameters of which transformers changes a part once they are loaded.

    Raises:
        ConversionError: `reference`, when the class or the checkpoint cannot be loaded.
    """
    sys.path[:0] = list(source["python_path"])
    try:
        cls = reduce(getattr, source["qualname"].split("."), importlib.import_module(source["module"]))
        with as_stored() as spared:
            model, loading = cls.from_pretrained(
                source["path"], local_files_only=True, dtype=torch.float32, output_loading_info=True,
                **source["options"],
            )  # fmt: skip
    except Exception as error:  # from_pretrained has no closed list of errors
        raise fail("reference", f"{source['qualname']} cannot be loaded: {error!r}", location=source["path"]) from error
    lacking = sorted(str(key) for kind in ("missing_keys", "mismatched_keys") for key in loading[kind])
    if lacking:  # transformers would fill them with random numbers
        message = f"{source['qualname']} has weights that the checkpoint lacks"
        raise fail("reference", message, location=source["path"], excerpt="\n".join(lacking))
    for config in _configs(model.config):
        if getattr(config, "use_cache", False):
            config.use_cache = False
    if restored is not None:
        restored += [name for name, parameter in model.named_parameters() if any(parameter is one for one in spared)]
    _own_memory(model)
    return model.eval()


def _own_memory(model: torch.nn.Module) -> None:
    """Copy the parameters out of the mapped file: one that is still in use would keep all of it resident."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


def _configs(config: Any) -> Iterator[Any]:
    """A config and the configs inside it."""
    yield config
    for name in getattr(config, "sub_configs", {}):
        if getattr(config, name, None) is not None:
            yield from _configs(getattr(config, name))


def widen(model: torch.nn.Module) -> None:
    """Turn a model to float64 in place, one parameter at a time; buffers keep their float32 values."""
    model.double()
    # The default has no float64 kernel. A model that holds another with experts may have no say in them.
    for part in model.modules():
        if isinstance(part, PreTrainedModel) and part._can_set_experts_implementation():
            part.set_experts_implementation("batched_mm")


def outputs(model: torch.nn.Module, inputs: Inputs) -> Inputs:
    """Every tensor leaf of the model's output at default flags, by dotted path."""
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in inputs.items()}
    with torch.no_grad(), MeanOfAll():
        return {name: leaf.detach().numpy() for name, leaf in leaves(model(**tensors, return_dict=True))}


def outputs_float64(model: torch.nn.Module, inputs: Inputs) -> Inputs:
    """The same of a widened model, with no step in float32."""
    wide = {name: a.astype(np.float64) if a.dtype == np.float32 else a for name, a in inputs.items()}
    with at_least_float64():
        return outputs(model, wide)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in a result, by dotted path below `path`."""
    if isinstance(value, torch.Tensor):
        yield path, value
        return
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, tuple | list) else ()
    for key, item in items:
        yield from leaves(item, f"{path}.{key}" if path else str(key))


def _work(job: dict[str, Any]) -> dict[str, Any]:
    torch.manual_seed(0)
    start = time.perf_counter()
    restored: list[str] = []
    model = load_model(job["source"], restored)
    loaded = time.perf_counter()
    cases = load_arrays(Path(job["cases"]))
    save_arrays(Path(job["float32"]), {case: outputs(model, inputs) for case, inputs in cases.items()})
    widen(model)
    save_arrays(Path(job["float64"]), {case: outputs_float64(model, inputs) for case, inputs in cases.items()})
    parameters = list(model.parameters())
    run = Run(
        "transformers", loaded - start, time.perf_counter() - loaded, peak_memory(), len(parameters),
        sum(p.numel() for p in parameters), restored,
    )  # fmt: skip
    return asdict(run)


if __name__ == "__main__":
    serve(_work)
