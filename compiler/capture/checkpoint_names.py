"""Which tensors of a checkpoint a model's parameters come from, by the rules with which transformers loads them."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

from hf2khc.capture.build import quiet
from hf2khc.capture.checkpoint_files import FileTensor, same_bytes
from hf2khc.capture.file_operations import FileOperation, tensor
from hf2khc.capture.record_conversion import Recorder, UnknownConversion
from hf2khc.diagnostics import fail


@dataclass
class CheckpointNames:
    """Where parameters come from.

    Args:
        stored: how each parameter and persistent buffer comes from tensors of the file, by its path in the model;
            tied ones all have their common source.
        aliases: path of the parameter that holds the values, by path of each one tied to it.
        repeats: the tensor whose values another one of the file repeats, by name of the one that repeats them.
        unused: reason, by name of each tensor of the file that nothing uses.
        absent: reason, by path of each buffer that the file does not have and need not have.
    """

    stored: dict[str, FileOperation] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    repeats: dict[str, str] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def checkpoint_names(model: PreTrainedModel, tensors: Mapping[str, FileTensor]) -> CheckpointNames:
    """Composes the names in a checkpoint with the renames, merges and splits of transformers' loading.

    Args:
        model: the whole model, not truncated; it may lie on the meta device.
        tensors: the tensors of the checkpoint by their names in the files.

    Raises:
        ConversionError: `weights-do-not-fit`, `tied-weights-differ`, `unknown-weight-conversion`.
    """
    names = CheckpointNames()
    wanted = {path: tuple(value.shape) for path, value in model.state_dict().items()}
    converters = _assign(model, tensors, wanted, names)
    for first, converter in converters.items():
        names.stored |= _convert(model, first, converter, wanted)
    _check_shapes(model, tensors, wanted, names)
    _tie(model, tensors, names)
    _check_missing(model, wanted, names)
    return names


def _assign(
    model: PreTrainedModel, tensors: Mapping[str, FileTensor], wanted: Mapping[str, Any], names: CheckpointNames
) -> dict[str, WeightConverter]:
    """Renames every tensor of the file; what is only renamed is stored, the rest is collected in converters."""
    with quiet():
        rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    patterns = {rule: list(rule.source_patterns) for rule in rules if isinstance(rule, WeightConverter)}
    by_pattern = {pattern: rule for rule, sources in patterns.items() for pattern in sources}
    meta, prefix = model.state_dict(), model.base_model_prefix
    collected: dict[str, WeightConverter] = {}
    for name in sorted(tensors, key=dot_natural_key):
        path, pattern = rename_source_key(name, renamings, list(patterns), prefix, meta)
        if path not in wanted and name in wanted:
            path, pattern = rename_source_key(name, [], [], prefix, meta)
        if path not in wanted:
            names.unused[name] = f"no parameter of {type(model).__name__}"
        elif pattern is None:
            names.stored[path] = tensor(name)
        else:
            converter = collected.setdefault(path, copy.deepcopy(by_pattern[pattern]))
            value = torch.empty(tensors[name].shape, device="meta")
            value.file_name = name
            converter.add_tensor(path, name, pattern, value)
    return collected


def _convert(
    model: PreTrainedModel, first: str, converter: WeightConverter, wanted: Mapping[str, Any]
) -> dict[str, FileOperation]:
    recorder = Recorder()
    for value in (value for values in converter.collected_tensors.values() for value in values):
        recorder.name(value, tensor(value.file_name))
    try:
        with quiet(), torch.no_grad(), recorder:
            made = converter.convert(first, model=model, config=model.config)
            values = {path: value[0] if isinstance(value, list) else value for path, value in made.items()}
            return {path: recorder.operation(value) for path, value in values.items() if path in wanted}
    except UnknownConversion as error:
        operations = ", ".join(type(operation).__name__ for operation in converter.operations)
        raise fail(
            "unknown-weight-conversion",
            f"transformers converts this weight in an unknown way: {error}",
            location=first,
            excerpt=operations,
            hint="load the model with transformers and write it with save_pretrained(save_original_format=False)",
        ) from error


def _check_shapes(
    model: PreTrainedModel, tensors: Mapping[str, FileTensor], wanted: Mapping[str, Any], names: CheckpointNames
) -> None:
    with torch.device("meta"):
        read = {name: torch.empty(entry.shape) for name, entry in tensors.items()}
    wrong = []
    for path, operation in names.stored.items():
        shape = tuple(_shape(operation, read))
        if shape != wanted[path]:
            wrong.append(f"{path}: {shape} in the file ({operation.tensors[0]}), {wanted[path]} in the model")
    if wrong:
        raise _do_not_fit(model, f"{len(wrong)} weights have another shape than the config gives", wrong)


def _shape(operation: FileOperation, read: Mapping[str, torch.Tensor]) -> tuple[int, ...]:
    if operation.is_tensor:
        return tuple(read[operation.tensors[0]].shape)
    attrs, shapes = dict(operation.attrs), [list(_shape(operand, read)) for operand in operation.operands]
    if operation.op in ("reshape", "slice"):
        return tuple(attrs["newshape" if operation.op == "reshape" else "shape"])
    if operation.op == "transpose":
        return tuple(shapes[0][axis] for axis in attrs["axes"])
    if operation.op == "concatenate":
        shapes[0][attrs["axis"]] = sum(shape[attrs["axis"]] for shape in shapes)
    else:
        shapes[0].insert(attrs["axis"], len(shapes))
    return tuple(shapes[0])


def _tie(model: PreTrainedModel, tensors: Mapping[str, FileTensor], names: CheckpointNames) -> None:
    """Gives tied parameters, and parameters of one module with two paths, the source that is in the file."""
    groups: dict[str, list[str]] = {}
    for path, source in tensor_owners(model).items():
        if path != source:
            groups.setdefault(source, []).append(path)
    for source, tied in groups.items():
        present = [path for path in (source, *tied) if path in names.stored]
        for path in present[1:]:
            _check_equal(present[0], path, tensors, names)
        for path in (source, *tied):
            if present and path != present[0]:
                _alias(names, path, present[0])


def tensor_owners(model: PreTrainedModel) -> dict[str, str]:
    """The path that stands for each parameter and persistent buffer: of tied ones, the one they are tied to."""
    tied = dict(getattr(model, "all_tied_weights_keys", None) or {})
    first: dict[int, str] = {}
    sources = {}
    state = model.state_dict(keep_vars=True)
    # What others are tied to comes first; two paths of one tensor are one parameter.
    for path in sorted(state, key=lambda path: path in tied):
        sources[path] = first.setdefault(id(state[path]), path)
    for path, source in tied.items():
        if path in sources and source in sources:
            sources[path] = sources[source]
    return sources


def _alias(names: CheckpointNames, path: str, source: str) -> None:
    former = names.stored.get(path)
    names.stored[path] = names.stored[source]
    names.aliases[path] = source
    for name in former.tensors if former is not None and former != names.stored[source] else ():
        names.repeats[name] = names.stored[source].tensors[0]


def _check_equal(first: str, second: str, tensors: Mapping[str, FileTensor], names: CheckpointNames) -> None:
    a, b = names.stored[first], names.stored[second]
    if a == b or a.is_tensor and b.is_tensor and same_bytes(tensors[a.tensors[0]], tensors[b.tensors[0]]):
        return
    raise fail(
        "tied-weights-differ",
        "the config ties two parameters, and the checkpoint has different values for them",
        location=f"{first}, {second}",
        hint='set "tie_word_embeddings": false in config.json',
    )


def _check_missing(model: PreTrainedModel, wanted: Mapping[str, Any], names: CheckpointNames) -> None:
    buffers = dict(model.named_buffers())
    missing = []
    for path in wanted:
        if path in names.stored:
            continue
        if path in buffers and not buffers[path].is_floating_point():
            names.absent[path] = "an integer buffer, which the model sets itself"
        else:
            missing.append(f"{path}: {wanted[path]}")
    if missing:
        raise _do_not_fit(model, f"the checkpoint lacks {len(missing)} weights of {type(model).__name__}", missing)


def _do_not_fit(model: PreTrainedModel, message: str, lines: list[str]):
    more = [f"... and {len(lines) - 8} more"] if len(lines) > 8 else []
    return fail(
        "weights-do-not-fit",
        message,
        location=str(model.config.name_or_path),
        excerpt="\n".join(lines[:8] + more),
        hint="the config and the weights belong to different models, or the class is another:\n"
        "choose it with --task, for example --task feature-extraction for the model without a head",
    )
