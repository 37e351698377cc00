"""Rates of dropout that a trace for inference does not show.

A module hands a rate to a function as `dropout=self.rate if self.training else 0.0`: in a trace for inference it is 0.
The model runs once more, in shapes alone and in training, and every rate is noted with the module that asked for it.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from hf2khc.capture.build import quiet
from hf2khc.capture.inputs import Input, sample_inputs
from hf2khc.capture.shapes_alone import shapes_alone

ATTENTION, DROPOUT = "scaled_dot_product_attention", "dropout"
# Of each function the name of its rate and the position.
_RATE = {ATTENTION: ("dropout_p", 4), DROPOUT: ("p", 1)}


@dataclass(frozen=True)
class Rates:
    """The rates in training.

    Args:
        found: by module path and function, in the order of the calls.
        reason: why the model did not run in training; empty where it did.
    """

    found: Mapping[tuple[str, str], Sequence[float]]
    reason: str = ""


def dropout_rates(model: nn.Module, spec: tuple[Input, ...], sizes: dict[str, int]) -> Rates:
    """The rates in training, as far as the model runs in training in shapes alone.

    Args:
        model: it is in evaluation mode, before and after.
        spec, sizes: its inputs.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    calls: list[nn.Module] = []
    rates: dict[tuple[str, str], list[float]] = defaultdict(list)
    inputs = sample_inputs(spec, sizes)
    try:
        with _stack(calls), _training(model), quiet(), torch.no_grad(), shapes_alone() as mode:
            tensors = {name: mode.from_tensor(torch.from_numpy(array)) for name, array in inputs.items()}
            with _Notes(lambda name, rate: rates[paths.get(id(calls[-1]), ""), name].append(rate)):
                model(**tensors)
    except Exception as error:  # whatever the model's own code raises
        return Rates(rates, f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
    return Rates(rates)


def restore_rates(graph: torch.fx.Graph, rates: Rates) -> tuple[str, ...]:
    """Give the calls of a trace whose rate is 0 the rates of training, in place, where they are the same calls.

    Returns:
        a note where calls may lack their rate, and so a package dropout that the model has.
    """
    found: dict[tuple[str, str], list[torch.fx.Node]] = defaultdict(list)
    for node in graph.nodes:
        name = str(node.target).removeprefix("aten.").removesuffix(".default")
        if node.op == "call_function" and name in _RATE:
            found[_module_path(node), name].append(node)
    unsure = 0
    for key, nodes in found.items():
        noted = rates.found.get(key, ())
        if len(noted) == len(nodes):
            for node, rate in zip(nodes, noted, strict=True):
                _set_rate(node, *_RATE[key[1]], rate)
        elif any(noted) or rates.reason:
            unsure += len(nodes)
    if not unsure:
        return ()
    why = rates.reason or "in training it computes in another order"
    return (f"{unsure} calls have the rate of dropout they have in inference, 0, as the model does not show "
            f"that of training: {why}",)  # fmt: skip


def _set_rate(node: torch.fx.Node, name: str, position: int, rate: float) -> None:
    shown = node.args[position] if len(node.args) > position else node.kwargs.get(name, 0.0)
    if shown != 0 or rate == 0:
        return
    if len(node.args) > position:
        node.update_arg(position, rate)
    else:
        node.update_kwarg(name, rate)


def _module_path(node: torch.fx.Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return re.sub(r"@\d+", "", stack[-1][0]) if stack else ""


class _Notes(TorchFunctionMode):
    def __init__(self, note: Callable[[str, float], None]):
        super().__init__()
        self._note = note

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name in _RATE and getattr(function, "__module__", "") in ("torch.nn.functional", "torch._C._nn"):
            keyword, position = _RATE[name]
            default = args[position] if len(args) > position else 0.5 if name == DROPOUT else 0.0
            self._note(name, float(kwargs.get(keyword, default)))
        return function(*args, **kwargs)


@contextmanager
def _stack(calls: list[nn.Module]) -> Iterator[None]:
    """Keeps the modules that are running, the innermost last."""
    register = nn.modules.module
    before = register.register_module_forward_pre_hook(lambda module, inputs: calls.append(module))
    after = register.register_module_forward_hook(lambda module, inputs, output: calls.pop() and None)
    try:
        yield
    finally:
        before.remove()
        after.remove()


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """Training, but for modules that hold a list of layers: those may leave whole layers out at random."""
    for module in model.modules():
        module.training = not any(isinstance(child, nn.ModuleList) for child in module.children())
    try:
        yield
    finally:
        model.eval()
