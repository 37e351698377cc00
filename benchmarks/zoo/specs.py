"""Tiny random-weight instances of transformers' architectures, described as data: one line of `specs.jsonl` each.

    spec = specs()["llama"]
    build(spec)                # the model: eval mode, float32, every parameter perturbed
    inputs(spec)               # what it is called with
    inputs(spec, padded=True)  # the same with padding in every row but the first; only the mask differs

A spec is a model type, the overrides of its config class, an Auto class, and the inputs. A head
(`bert.AutoModelForMaskedLM`) names a base spec, whose config and inputs it shares; its own config is laid over it.
Everything is seeded by the name, so two builds give bit-equal models and inputs.
"""

import copy
import functools
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import CONFIG_MAPPING, PreTrainedModel

from hf2khc.capture.build import turn_caches_off
from hf2khc.capture.random_weights import floating_state, spread

FILE = Path(__file__).parent / "specs.jsonl"
# Model types that the zoo has no spec of.
BEYOND = FILE.with_name("beyond.jsonl")
REMOVED = "__del__"


@dataclass(frozen=True)
class Spec:
    """One tiny model.

    Args:
        name: `bert`, or `bert.AutoModelForMaskedLM` for a head.
        family: what kind of model it is: encoder, decoder, vision and so on.
        model_type: key of transformers' config mapping.
        auto_class: name of the Auto class that chooses the class.
        config: overrides of the config.
        inputs: how each input is made, by name.
        padded: the same with padding; may be the same inputs again where the model takes no mask.
        place: in its file.
    """

    name: str
    family: str
    model_type: str
    auto_class: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Mapping[str, Any]]
    padded: Mapping[str, Mapping[str, Any]]
    place: int = 0

    @property
    def head(self) -> bool:
        """Whether it is a task head on another spec's model."""
        return self.name.endswith(f".{self.auto_class}")


@functools.cache
def specs(file: Path = FILE) -> dict[str, Spec]:
    """All specs by name, heads with what they share with their base."""
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    merged = _merged({line["name"]: line for line in lines}).items()
    return {name: _spec(entry, place) for place, (name, entry) in enumerate(merged)}


def _merged(lines: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, line in lines.items():
        base = lines[line["base"]] if line.get("base") else {}
        shared = {key: base.get(key) for key in ("inputs", "inputs_padded") if line.get(key) == "base"}
        found[name] = {**line, **shared, "config": laid_over(base.get("config", {}), line.get("config", {}))}
    return found


def _spec(entry: Mapping[str, Any], place: int) -> Spec:
    return Spec(
        entry["name"], entry["family"], entry["model_type"], entry["auto_class"], entry["config"],
        entry["inputs"], entry.get("inputs_padded") or entry["inputs"], place,
    )  # fmt: skip


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, dictionaries merged at every depth; the value `__del__` takes a key away."""
    result = dict(below)
    for key, value in above.items():
        if value == REMOVED:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = laid_over(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def build(spec: Spec) -> PreTrainedModel:
    """The model of a spec: float32, in eval mode, every parameter perturbed.

    Raises:
        Exception: whatever transformers raises for a config that it does not take.
    """
    config = CONFIG_MAPPING[spec.model_type](**copy.deepcopy(dict(spec.config)))
    turn_caches_off(config)
    torch.manual_seed(_seed(spec.name))
    model = getattr(transformers, spec.auto_class).from_config(config).eval().float()
    model.config.name_or_path = spec.name
    return perturbed(model, _seed(spec.name, "noise"))


@torch.no_grad()
def perturbed(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """The model with seeded noise on every floating parameter (tied ones once) and persistent buffer, in place.

    Then no bias is 0, no scale of a norm is 1 and attention is not uniform: what is dropped or swapped shows. Matrices
    get noise of 0.5 / sqrt(fan in), at most 0.2, vectors of 0.1; buffers keep their sign.
    """
    random = torch.Generator().manual_seed(seed)
    for module, tensor in floating_state(model):
        if isinstance(tensor, torch.nn.Parameter):
            tensor.add_((torch.randn(tensor.shape, generator=random) * spread(module, tensor)).to(tensor.dtype))
        else:
            _perturb_buffer(tensor, random)
    return model


def _perturb_buffer(buffer: torch.Tensor, random: torch.Generator) -> None:
    factor = 1 + 0.2 * (torch.rand(buffer.shape, generator=random) * 2 - 1)
    changed = buffer * factor + 0.1 * torch.rand(buffer.shape, generator=random)
    buffer.copy_(torch.where(torch.isfinite(buffer), changed, buffer).to(buffer.dtype))


def inputs(spec: Spec, padded: bool = False) -> dict[str, np.ndarray]:
    """What the model of a spec is called with: arrays of int64, int32, float32 or bool by argument name."""
    return {name: _array(name, entry) for name, entry in (spec.padded if padded else spec.inputs).items()}


_FILLS: dict[str, Callable[[tuple[int, ...], np.random.Generator], np.ndarray]] = {
    "normal": lambda shape, random: random.standard_normal(shape),
    "uniform": lambda shape, random: random.random(shape),
    "ones": lambda shape, random: np.ones(shape),
    "zeros": lambda shape, random: np.zeros(shape),
    "arange": lambda shape, random: np.broadcast_to(np.arange(shape[-1]), shape),
}


def _array(name: str, entry: Mapping[str, Any]) -> np.ndarray:
    dtype = np.dtype(entry["dtype"])
    if "values" in entry:
        values = np.array(entry["values"], dtype)
        return values.reshape(entry["shape"]) if entry.get("shape") is not None else values
    shape, random = tuple(entry["shape"]), np.random.default_rng(_seed(name))
    kind, *bounds = entry["fill"].split(":")
    if kind == "randint":
        return random.integers(int(bounds[0]), int(bounds[1]), size=shape).astype(dtype)
    return np.ascontiguousarray(_FILLS[kind](shape, random)).astype(dtype)


def _seed(*parts: object) -> int:
    return zlib.crc32("/".join(map(str, parts)).encode())
