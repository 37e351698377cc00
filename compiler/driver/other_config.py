"""Whether a package is right at another config: its classes built for a second model of the type, and proved on it."""

import copy
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hf2khc.capture.build import build_meta
from hf2khc.capture.configs import check_config
from hf2khc.capture.frontend import Captured
from hf2khc.capture.inputs import input_spec, trace_sizes
from hf2khc.capture.source import Source
from hf2khc.capture.twin_fields import get_field, set_field
from hf2khc.check.gradient_report import Gradients
from hf2khc.diagnostics import ConversionError, Diagnostic, fail
from hf2khc.driver.config_fields import flat_fields
from hf2khc.driver.fill import fill, with_weights
from hf2khc.driver.gradients import gradients_of_package
from hf2khc.driver.layout import write_preset
from hf2khc.driver.naming import make_signature
from hf2khc.driver.proof import prove_package
from hf2khc.ir.expr import entry_of
from hf2khc.ir.graph import Node, Program
from hf2khc.write.iteration import series_at
from hf2khc.write.plan import CONSTANT, Plan

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from hf2khc.driver.compile import Compiled

BACKEND = "torch"


@dataclass(frozen=True)
class OtherConfig:
    """What was found there.

    Args:
        reasons: why the package is not right there; empty where it is.
        gradients: the comparison of gradients, None where it was not reached.
    """

    reasons: tuple[str, ...]
    gradients: Gradients | None = None


def other_config(directory: Path, source: Source, compiled: "Compiled", seed: int = 0) -> OtherConfig:
    """Build the package's classes at another width, depth, vocabulary and epsilon, and prove them there.

    Args:
        directory: the package.
        source: the model it was made from.
        compiled: what it was written from.
        seed: of the other model's random weights and inputs.
    """
    if compiled.generalises or compiled.twin is None:
        return OtherConfig(compiled.generalises or ("the model has no twin",))
    depths = _depths(compiled)
    deeper = _deeper(compiled.twin.config, depths)
    found = _proved(directory, source, compiled, deeper, seed)
    # A list may have as many entries as there are layers by chance: two numbers for the two sides of a patch.
    kept = _deeper(compiled.twin.config, depths, with_lists=False)
    if found.reasons and kept.to_dict() != deeper.to_dict():
        again = _proved(directory, source, compiled, kept, seed)
        return found if again.reasons else again
    return found


def _proved(
    directory: Path, source: Source, compiled: "Compiled", config: "PreTrainedConfig", seed: int
) -> OtherConfig:
    """The package's classes built at a config and proved there."""
    assert compiled.twin is not None
    try:
        captured = _captured(compiled.captured, source, config)
    except ConversionError as error:
        return _failed(error.diagnostics)
    plan = _at(compiled.plan, config, compiled)
    signature = make_signature(plan, captured, compiled.twin.omitted)
    with tempfile.TemporaryDirectory(prefix="hf2khc-config-") as folder:
        package = Path(folder, "package")
        shutil.copytree(directory / plan.package, package / plan.package)
        write_preset(plan, signature, package)
        try:
            other = with_weights(
                replace(source, config=config, directory=None, live=None, examples=()), Path(folder, "model"), seed
            )
            fill(other, plan, package, weights=True)
            there = replace(compiled, plan=plan, signature=signature, captured=captured)
            proof = prove_package(package, other, there, (BACKEND,), seed)
        except ConversionError as error:
            return _failed(error.diagnostics)
        gradients = gradients_of_package(package, other, there, "another config", seed) if proof.holds else None
    return replace(_failed(proof.diagnostics), gradients=gradients)


def _failed(diagnostics: Sequence[Diagnostic]) -> OtherConfig:
    return OtherConfig(tuple(diagnostic.render() for diagnostic in diagnostics))


def _depths(compiled: "Compiled") -> dict[str, int]:
    """Layers by field: three, one more than a loop needs, or as many as show every kind.

    A list of layers that is printed one by one has the length it has.
    """
    assert compiled.twin is not None
    stacks, counted = compiled.captured.stacks, compiled.plan.values
    shown = ((path, field) for path, field in compiled.twin.depth.items() if field in counted)
    return {field: max(3, stacks[path].kept if path in stacks else 0) for path, field in shown}


def _deeper(config: "PreTrainedConfig", depths: Mapping[str, int], with_lists: bool = True) -> "PreTrainedConfig":
    """The twin with so many layers."""
    config = copy.deepcopy(config)
    for field, depth in depths.items():
        _set_depth(config, field.removeprefix("config."), depth, with_lists)
    return config


def _set_depth(config: "PreTrainedConfig", field: str, depth: int, with_lists: bool) -> None:
    """Sets a depth, and gives lists with an entry per layer as many entries: those they have, over and over."""
    before = get_field(config, field)
    set_field(config, field, depth)
    if entry_of(field) is not None or not with_lists:
        return
    owner, _, _ = field.rpartition(".")
    part = get_field(config, owner) if owner else config
    for name, entries in vars(part).items():
        if isinstance(entries, list) and len(entries) == before:
            setattr(part, name, [entries[i % before] for i in range(depth)])


def _at(plan: Plan, config: "PreTrainedConfig", compiled: "Compiled") -> Plan:
    """The plan with the values of another config; what is printed does not depend on them."""
    values = {f"config.{name}": value for name, value in flat_fields(config).items()}
    constants = compiled.twin.constants if compiled.twin else {}
    values |= {f"{CONSTANT}{path}": array.tolist() for path, array in constants.items()}
    fields = tuple(replace(field, value=values.get(field.source, field.value)) for field in plan.fields)
    return replace(plan, fields=fields, program=replace(_with_kinds(plan, values), constants=constants))


def _with_kinds(plan: Plan, values: Mapping[str, object]) -> Program:
    """The program whose loops run the kinds of layers that there are at other values."""

    def changed(node: Node) -> Node:
        if node.op != "loop":
            return node
        series = {key: value for key, value in node.attrs.items() if isinstance(value, tuple)}
        return node.with_attrs(**{key: series_at(plan, node, value, values) for key, value in series.items()})

    return plan.program.map(lambda graph: graph.replaced([changed(node) for node in graph]))


def _captured(captured: Captured, source: Source, config: "PreTrainedConfig") -> Captured:
    check_config(config)
    model = build_meta(config, source.model_class)
    spec = input_spec(model, source.examples)
    missing = {entry.name for entry in captured.spec} - {entry.name for entry in spec}
    if missing:
        raise fail("inputs-unknown", f"transformers does not make {', '.join(sorted(missing))} there")
    fixed = {symbol: size for symbol, size in captured.sizes.items() if symbol not in captured.smallest}
    sizes = trace_sizes(model, spec) | fixed
    return replace(captured, spec=spec, sizes=sizes, parameters=model.num_parameters())
