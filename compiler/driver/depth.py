"""Depth: loops over the layers that were kept become loops over all of them."""

import copy
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from hf2khc.capture.build import build_meta
from hf2khc.capture.truncate import Stack, truncate
from hf2khc.capture.twin_fields import get_field, set_field
from hf2khc.capture.twin_search import reloaded
from hf2khc.diagnostics import ConversionError, fail
from hf2khc.driver.config_fields import integer_fields
from hf2khc.ir.expr import Expr
from hf2khc.ir.graph import Node, Program

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


# Code of the diagnostic for layers that are no one computation.
UNROLLED = "unrolled-layers"
MORE_LAYERS = 3


def with_depth(program: Program, stacks: Mapping[str, Stack], depth: Mapping[str, str]) -> Program:
    """The program with every list of layers at its real length.

    Args:
        program: at the keras level, after hoisting: loops stand in the entry, or under a module path known there.
        stacks: the lists of layers, by module path.
        depth: the config field that gives a list's length, by module path.

    Raises:
        ConversionError: a list was cut whose layers are no loop.
    """
    seen: set[str] = set()
    graphs = {}
    for graph in program.graphs.values():
        nodes = [_deepened(node, stacks, depth, seen) if node.op == "loop" else node for node in graph]
        graphs[graph.name] = graph.replaced(nodes)
    missing = [path for path, stack in stacks.items() if stack.cut and path not in seen]
    if missing:
        raise fail(UNROLLED, f"the layers of {', '.join(missing)} were not recognised as one loop")
    return program.with_graphs(graphs.values())


def uncounted(program: Program, stacks: Mapping[str, Stack], depth: Mapping[str, str]) -> dict[str, str]:
    """The config fields that count layers and no loop of the program: those layers are printed one by one.

    Args:
        program: what `with_depth` gave.
        stacks: the lists of layers that are there, by module path; empty where all are whole.
        depth: the config field that gives a list's length, by module path.

    Returns:
        By field, without `config.`, why it keeps its value.
    """
    counts = (node.attrs["count"] for graph in program.graphs.values() for node in graph.of("loop"))
    counted = {name for count in counts if isinstance(count, Expr) for name in count.names}
    there = {path: field for path, field in depth.items() if path in stacks or not stacks}
    return {
        field.removeprefix("config."): f"the layers of {path} are printed one by one"
        for path, field in there.items()
        if field not in counted
    }


def _deepened(node: Node, stacks: Mapping[str, Stack], depth: Mapping[str, str], seen: set[str]) -> Node:
    path = re.sub(r"\.?\{i\}$", "", str(node.attrs["path"]))
    stack = stacks.get(path)
    if stack is None:
        return node
    seen.add(path)
    start, count = int(node.attrs["start"]), int(node.attrs["count"])  # type: ignore[call-overload]
    if start + count != stack.kept:
        if not stack.cut:
            return node
        raise fail(UNROLLED, f"the loop over {path} ends at {start + count}, not at layer {stack.kept}")
    changes: dict[str, object] = {"count": _count(stack, start, depth.get(path))}
    shown = stack.kinds[start : stack.kept]
    unseen = set(stack.kinds[start:]) - set(shown)
    if unseen:  # layers of this kind stand before the loop only: what they would be inside is not known
        first = next(i for i, kind in enumerate(stack.kinds) if i >= stack.kept and kind in unseen)
        raise fail(UNROLLED, f"the loop over {path} shows no layer like layer {first}")
    for key, value in node.attrs.items():
        if isinstance(value, tuple) and len(value) == count and key not in ("path", "name"):
            changes[key] = tuple(value[shown.index(kind)] for kind in stack.kinds[start:])
    return node.with_attrs(**changes)


def _count(stack: Stack, start: int, field: str | None) -> int | Expr:
    if field is None:
        return stack.length - start
    return Expr.of(f"{field} - {start}" if start else field)


def depth_fields(
    config: "PreTrainedConfig", model_class: "type[PreTrainedModel]", stacks: Mapping[str, int]
) -> dict[str, str]:
    """The config field behind the length of each list of layers: one less in the field is one layer less in the list.

    Args:
        stacks: real length by module path.
    """
    found: dict[str, str] = {}
    for field, length in integer_fields(config):
        candidates = [path for path, n in stacks.items() if n == length and path not in found]
        if not candidates or length < 2:
            continue
        lengths = _lengths(config, model_class, field, length - 1)
        found.update({path: f"config.{field}" for path in candidates if lengths.get(path) == length - 1})
    return found


def _lengths(config: "PreTrainedConfig", model_class, field: str, value: int) -> dict[str, int]:
    shorter = copy.deepcopy(config)
    try:
        set_field(shorter, field, value)
        model = build_meta(shorter, model_class)
    except (ConversionError, Exception):  # a config that refuses the value has another reason for its length
        return {}
    return {path: len(module) for path, module in model.named_modules() if type(module).__name__ == "ModuleList"}


def _parameters(config: "PreTrainedConfig", model_class: type["PreTrainedModel"]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in build_meta(config, model_class).state_dict().items()}


def with_more_rounds(
    config: "PreTrainedConfig", model_class: type["PreTrainedModel"], program: Program
) -> "PreTrainedConfig":
    """The config with one more round of every layer that is called again and again on its own result.

    Such a loop leaves no trace in the list of parameters: only another program shows which field counts it.

    Args:
        config: of a twin.
        model_class: class of the model.
        program: of that twin, loops rolled.
    """
    loops = [node for graph in program.graphs.values() for node in graph.of("loop")]
    counts = {node.attrs["count"] for node in loops if "{i}" not in str(node.attrs["path"])}
    for field, value in list(integer_fields(config)):
        if value not in counts:
            continue
        more = copy.deepcopy(config)
        try:
            set_field(more, field, value + 1)
            same = _parameters(more, model_class) == _parameters(config, model_class)
        except Exception:  # a config that refuses the value counts something else
            continue
        config = more if same else config
    return config


def at_another_depth(
    config: "PreTrainedConfig", model_class: type["PreTrainedModel"], fields: Collection[str]
) -> "PreTrainedConfig":
    """The config with another number of layers, few, where that leaves those that are kept as they are.

    What a layer computes may hang on how many there are: residuals are scaled by `num_hidden_layers ** -0.5`, say. And
    a twin of few layers is built sooner.

    Args:
        config: of a twin.
        model_class: class of the model.
        fields: that count layers, as `depth_fields` gives them.
    """
    shown = _shown(config, model_class)
    few = max(map(len, shown.values()), default=0) + MORE_LAYERS
    for field in sorted({field.removeprefix("config.") for field in fields}):
        before, other = get_field(config, field), copy.deepcopy(config)
        try:
            set_field(other, field, few if few < before else before + MORE_LAYERS)
            reloaded(other)  # as the search for a twin does
            same = _shown(other, model_class) == shown
        except Exception:  # lists with an entry for each layer, say
            continue
        config = other if same else config
    return config


def as_deep_as(config: "PreTrainedConfig", other: "PreTrainedConfig", fields: Collection[str]) -> "PreTrainedConfig":
    """The config with as many layers as another one has.

    Args:
        config: of a twin.
        other: the config of the real model.
        fields: that count layers, as `depth_fields` gives them.
    """
    config = copy.deepcopy(config)
    for field in {field.removeprefix("config.") for field in fields}:
        set_field(config, field, get_field(other, field))
    return config


def _shown(config: "PreTrainedConfig", model_class: type["PreTrainedModel"]) -> dict[str, tuple[int, ...]]:
    """Kinds of the layers that are kept, by the list they stand in."""
    stacks = truncate(build_meta(config, model_class))
    return {path: stack.kinds[: stack.kept] for path, stack in stacks.items()}
