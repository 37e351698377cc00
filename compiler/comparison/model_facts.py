"""What the real model is: its modules, tensors and config values. Runs in a process of its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf2khc.process import hide_other_backends, serve


def _work(job: dict[str, Any]) -> dict[str, Any]:
    hide_other_backends()
    from hf2khc.capture.build import build_meta
    from hf2khc.capture.checkpoint_files import read_checkpoint
    from hf2khc.capture.checkpoint_names import checkpoint_names
    from hf2khc.capture.source import open_source
    from hf2khc.driver.fill import with_weights
    from hf2khc.static.template import argument_values

    source = open_source(job["model"], **job["options"])
    directory = Path(job["directory"], source.name)
    weighted = with_weights(source, directory, job["seed"])
    assert weighted.directory is not None, "the weights are on disk"
    model = build_meta(source.config, source.model_class)
    names = checkpoint_names(model, read_checkpoint(weighted.directory))
    modules = list(_modules(model, {path: list(operation.tensors) for path, operation in names.stored.items()}))
    return {
        "model": job["model"],
        "class": source.model_class.__name__,
        "model_type": source.config.model_type,
        "directory": str(weighted.directory),
        "modules": modules,
        "parts": _parts(model, [module["path"] for module in modules]),
        "tensors": sorted({name for operation in names.stored.values() for name in operation.tensors}),
        "repeats": dict(names.repeats),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "fields": argument_values(source.config.get_text_config()),
    }


def _modules(model: Any, stored: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    """Every module that owns parameters itself, with the tensors that hold them."""
    for path, module in model.named_modules():
        own = [name for name, parameter in module._parameters.items() if parameter is not None]
        tensors = [tensor for name in own for tensor in stored.get(f"{path}.{name}" if path else name, ())]
        if tensors:
            yield {"path": path, "class": type(module).__name__, "bias": "bias" in own, "tensors": tensors}


def _parts(model: Any, owners: list[str]) -> dict[str, list[str]]:
    """The classes of the model's own, not of torch, with the modules in them that own parameters."""
    parts: dict[str, list[str]] = {}
    for path, module in model.named_modules():
        below = [owner for owner in owners if owner == path or owner.startswith(f"{path}.")]
        if path and below and not type(module).__module__.startswith("torch."):
            parts.setdefault(type(module).__name__, []).extend(below)
    return parts


if __name__ == "__main__":
    serve(_work)
