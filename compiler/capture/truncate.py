"""Cuts repeated layers to the fewest that show every kind of layer."""

from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

INDEX_WORDS = {"idx", "index", "id", "i", "layer", "block", "number", "depth", "level"}
SHORTEST = 2  # one layer would not show what is handed from layer to layer


@dataclass(frozen=True)
class Stack:
    """A list of repeated layers.

    Args:
        path: its module path; it is an `nn.ModuleList`.
        length: how many layers the real model has.
        kept: how many remain, from the first on.
        kinds: a number per real layer; layers of one kind compute the same but for their parameters.
        layers: the real list.
    """

    path: str
    length: int
    kept: int
    kinds: tuple[int, ...]
    layers: nn.ModuleList

    @property
    def cut(self) -> bool:
        """Whether layers are missing."""
        return self.kept < self.length


def truncate(model: PreTrainedModel, whole: Collection[str] = ()) -> dict[str, Stack]:
    """Cuts every ModuleList of a model in place.

    What is kept is the shortest prefix that shows each kind of layer, and each kind after another or itself where that
    occurs, and no fewer than two layers. Only lists whose tail repeats kinds of the prefix are cut, and none whose
    layers share parameters: what is cut off would be taken for layers with parameters of their own.

    Args:
        model: on any device.
        whole: paths of lists that are left as they are.

    Returns:
        Every list of two layers or more, by module path; a short one is whole. Lists inside a layer that is gone are
        not in it.
    """
    stacks: dict[str, Stack] = {}
    _truncate_below(model, model, "", stacks, whole)
    return stacks


def restore(model: PreTrainedModel, stacks: dict[str, Stack]) -> None:
    """Undoes `truncate`, in place. Layers put back still lie where they were made (on the meta device)."""
    for path, stack in stacks.items():
        if not stack.cut:
            continue
        owner, _, name = path.rpartition(".")
        setattr(model.get_submodule(owner), name, stack.layers)


def _truncate_below(
    model: PreTrainedModel, module: nn.Module, path: str, stacks: dict[str, Stack], whole: Collection[str]
) -> None:
    for name, child in list(module.named_children()):
        child_path = f"{path}.{name}" if path else name
        if isinstance(child, nn.ModuleList) and type(child).forward is nn.ModuleList.forward and len(child) >= SHORTEST:
            kinds = layer_kinds(model, child)
            kept = len(child) if child_path in whole or _share(child) else prefix_length(kinds)
            stack = Stack(child_path, len(child), kept, kinds, child)
            stacks[child_path] = stack
            if stack.cut:
                child = nn.ModuleList(list(child)[: stack.kept])
                setattr(module, name, child)
        _truncate_below(model, child, child_path, stacks, whole)


def _share(layers: nn.ModuleList) -> bool:
    """Whether two layers have a parameter in common."""
    owned = [{id(parameter) for parameter in layer.parameters()} for layer in layers if layer is not None]
    return len(set().union(*owned)) < sum(map(len, owned))


def prefix_length(kinds: Sequence[Hashable]) -> int:
    """Length of the shortest prefix with every kind, and with every pair of neighbours that occurs at all."""
    seen: set[tuple[Hashable, ...]] = set()
    last = 0
    for index, kind in enumerate(kinds):
        shown = {(kind,), (kinds[index - 1], kind)} if index else {(kind,)}
        if not shown <= seen:
            last = index
            seen |= shown
    return max(last + 1, min(SHORTEST, len(kinds)))


def layer_kinds(model: PreTrainedModel, layers: nn.ModuleList) -> tuple[int, ...]:
    """A number per layer, equal for layers of one kind."""
    lists = [entries for entries in _config_lists(model.config) if len(entries) == len(layers)]
    numbers: dict[Hashable, int] = {}
    kinds = []
    for index, layer in enumerate(layers):
        kind = (_module_kind(layer, index), tuple(_plain(entries[index]) for entries in lists))
        kinds.append(numbers.setdefault(kind, len(numbers)))
    return tuple(kinds)


def _module_kind(layer: nn.Module | None, index: int) -> Hashable:
    if layer is None:  # a list may have gaps: Informer has no convolution behind its last layer
        return None
    return tuple(
        (path, type(module), _attributes(module, index), _tensors(module)) for path, module in layer.named_modules()
    )


def _tensors(module: nn.Module) -> Hashable:
    tensors = [*module._parameters.items(), *module._buffers.items()]
    return tuple((name, None if tensor is None else tuple(tensor.shape)) for name, tensor in tensors)


def _attributes(module: nn.Module, index: int) -> Hashable:
    """Scalar attributes, the layer's own index taken out wherever it stands."""
    found = []
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or name == "training":
            continue
        if isinstance(value, int) and not isinstance(value, bool) and value == index and _names_index(name):
            continue
        if isinstance(value, bool | int | float | str | tuple | list | type(None)):
            found.append((name, _plain(value)))
        elif callable(value) and not isinstance(value, nn.Module):
            found.append((name, getattr(value, "__qualname__", type(value).__qualname__)))
    return tuple(found)


def _names_index(name: str) -> bool:
    # A width that happens to equal the index is a width.
    return not INDEX_WORDS.isdisjoint(name.lower().split("_"))


def _config_lists(config: Any) -> Iterator[list[Any]]:
    for value in vars(config).values():
        if isinstance(value, list | tuple):
            yield list(value)
        elif hasattr(value, "sub_configs"):
            yield from _config_lists(value)


def _plain(value: Any) -> Hashable:
    return repr(value) if isinstance(value, list | tuple | dict | float) else value
