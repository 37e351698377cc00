"""Random weights, written as a checkpoint."""

import copy
import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from hf2khc.capture.build import build_meta, quiet
from hf2khc.capture.source import Source
from hf2khc.diagnostics import fail

HEADROOM = 1 << 30  # bytes besides the weights: the process itself and one tensor's noise
SHARD = "2GB"


def materialise(source: Source, directory: Path, seed: int = 0, shard: str = SHARD) -> Source:
    """Writes `config.json` and safetensors for a source that has no weights yet.

    A model the user gave is saved as it is. Otherwise the model is built with transformers' own random initialisation,
    and every parameter and every floating persistent buffer gets seeded noise on top, so that none of them is 0, 1 or
    equal to another and nothing can be dropped unseen.

    Raises:
        ConversionError: `not-enough-memory`, `not-enough-disk`, `cannot-build`, `cannot-save`.
    """
    if source.live is None:
        check_memory(source, directory)
    model = source.live if source.live is not None else random_model(source, seed)
    try:
        with quiet():
            model.save_pretrained(directory, max_shard_size=shard)
    except Exception as error:
        raise fail(
            "cannot-save",
            f"transformers cannot save {type(model).__name__}",
            location=str(directory),
            excerpt=f"{type(error).__name__}: {error}"[:600],
            hint="quantised and otherwise wrapped models have to be turned back into plain ones first",
        ) from error
    return dataclasses.replace(source, directory=directory, live=None)


def random_model(source: Source, seed: int = 0) -> PreTrainedModel:
    """The real model of a source, float32 on the CPU, in eval mode, with random values everywhere."""
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = source.model_class._from_config(copy.deepcopy(source.config), dtype=torch.float32).eval()
    except Exception as error:
        raise fail(
            "cannot-build",
            f"{source.model_class.__name__} does not build from its config",
            location=source.model,
            excerpt=f"{type(error).__name__}: {error}"[:600],
            hint="correct the values given with --set",
        ) from error
    add_noise(model, seed)
    return model


@torch.no_grad()
def add_noise(model: nn.Module, seed: int) -> None:
    """Adds seeded noise to every floating parameter and persistent buffer, in place; tied ones once.

    Matrices get noise that keeps the size of a layer's output, vectors noise of 0.1; buffers keep their sign, so that
    variances stay positive.
    """
    random = torch.Generator().manual_seed(seed)
    for module, tensor in floating_state(model):
        if isinstance(tensor, nn.Parameter):
            tensor.add_(torch.empty_like(tensor).normal_(0, spread(module, tensor), generator=random))
        else:
            scale = torch.empty_like(tensor).uniform_(0.8, 1.2, generator=random)
            shift = torch.empty_like(tensor).uniform_(0.01, 0.1, generator=random)
            tensor.mul_(scale).add_(torch.where(tensor < 0, -shift, shift))


def floating_state(model: nn.Module) -> Iterator[tuple[nn.Module, torch.Tensor]]:
    """Every floating parameter, tied ones once, and persistent buffer, each with the module that holds it."""
    done: set[int] = set()
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None and parameter.is_floating_point() and id(parameter) not in done:
                done.add(id(parameter))
                yield module, parameter
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_floating_point() and name not in module._non_persistent_buffers_set:
                yield module, buffer


def spread(module: nn.Module, parameter: torch.Tensor) -> float:
    """The deviation of noise that keeps the size of a layer's output: 0.1 for vectors, at most 0.2 for matrices."""
    if parameter.ndim < 2:
        return 0.1
    convolution = isinstance(module, nn.modules.conv._ConvNd)
    fan_in = parameter[0].numel() if convolution else parameter.shape[-1]
    return min(0.2, 0.5 / max(fan_in, 1) ** 0.5)


def estimate_bytes(source: Source) -> int:
    """Bytes that the weights of a source take in float32."""
    model = source.live if source.live is not None else build_meta(source.config, source.model_class)
    tensors = {id(value): value for value in (*model.parameters(), *model.buffers())}
    return sum(value.numel() * 4 for value in tensors.values())


def check_memory(source: Source, directory: Path, available: int | None = None) -> None:
    """Refuses weights that do not fit in the memory or on the disk that is free.

    Raises:
        ConversionError: `not-enough-memory`, `not-enough-disk`.
    """
    size = estimate_bytes(source)
    free = available_memory() if available is None else available
    hint = "make the model smaller, for example with --set num_hidden_layers=2"
    if size + HEADROOM > free:
        raise fail(
            "not-enough-memory",
            f"random weights take {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free",
            location=source.model,
            hint=hint,
        )
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    disk = shutil.disk_usage(existing).free
    if size > disk:
        raise fail(
            "not-enough-disk",
            f"random weights take {size / 1e9:.1f} GB, and {disk / 1e9:.1f} GB are free",
            location=str(directory),
            hint=hint,
        )


def available_memory() -> int:
    """Bytes of memory that this process may still take: what the machine has free, or what its group may use."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else free
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free
