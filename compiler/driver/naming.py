"""Names of the package: constructor arguments, inputs, outputs, and the signature that ties them to transformers'."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hf2khc.capture.free_sizes import SMALLEST
from hf2khc.capture.frontend import Captured
from hf2khc.capture.inputs import Input, sample_inputs
from hf2khc.capture.source import Source
from hf2khc.capture.source_lines import source_lines
from hf2khc.driver.config_fields import flat_fields
from hf2khc.driver.twin import Twinned
from hf2khc.ir.analysis import constant_paths, mentioned_fields
from hf2khc.ir.expr import Expr, entry_of
from hf2khc.ir.graph import Node, Program
from hf2khc.ir.outline import class_prefix
from hf2khc.passes.keras.vocabulary import (
    DECODER_TOKENS,
    ENCODER_INPUT_NAMES,
    ENCODER_OUTPUT_NAMES,
    FIELD_NAMES,
    INPUT_NAMES,
    OUTPUT_NAMES,
)
from hf2khc.write.iteration import kind_lists
from hf2khc.write.layer_facts import reserved_attributes
from hf2khc.write.plan import CONSTANT, Field, Head, Plan

# Constants up to this many elements are data of the constructor; larger ones become weights that are not trained.
MOST_DATA = 4096
# Integers of an example that a printed test repeats; more would be no text to read.
_MOST_GIVEN = 64
# Layers of the model in the printed tests.
_SMALL_DEPTH = 2
# Parameters, at that depth, of the largest model that the printed tests build at its own sizes.
_MOST_TESTED = 50_000_000
_DOCS = {
    "vocabulary_size": "The size of the token vocabulary.",
    "num_layers": "The number of transformer layers.",
    "num_heads": "The number of attention heads for each transformer.",
    "num_query_heads": "The number of query attention heads for each transformer.",
    "num_key_value_heads": "The number of key and value attention heads for each transformer.",
    "hidden_dim": "The size of the transformer hidden state.",
    "intermediate_dim": "The output dimension of the first dense layer of each feedforward network.",
    "head_dim": "The size of each attention head.",
    "dropout": "Dropout probability.",
    "attention_dropout": "Dropout probability of the attention weights.",
    "layer_norm_epsilon": "Epsilon of the normalization layers.",
    "max_sequence_length": "The maximum sequence length.",
    "num_segments": "The number of segment ids.",
    "rope_max_wavelength": "The maximum angular wavelength of the rotary embeddings.",
    "sliding_window_size": "The size of the sliding local window.",
    "num_classes": "The number of classes to predict.",
    "image_size": "The height and width of the images.",
    "inverse_frequencies": "The inverse frequencies of the rotary embeddings.",
}


def make_plan(source: Source, program: Program, captured: Captured, twinned: Twinned, head: Head | None = None) -> Plan:
    """What the writer prints, with every name chosen; `tiny` is left to `small_config`."""
    values = {f"config.{name}": value for name, value in flat_fields(source.config).items()}
    lists = kind_lists(program, [Field(field, field, value) for field, value in values.items()])
    names = _field_names([*mentioned_fields(program), *lists])
    fields = [_config_field(source_name, name, values[source_name]) for source_name, name in names.items()]
    for path, (name, array) in _constants(program, set(names.values())).items():
        fields.append(Field(f"{CONSTANT}{path}", name, array.tolist(), field_doc(name, array.tolist())))
    return Plan(
        package=source.name,
        prefix=_prefix(source, program),
        program=program,
        fields=tuple(fields),
        inputs={node.name: (_input_name(node.name, captured.spec), _dtype(node)) for node in program.main.inputs},
        outputs=tuple(_output_names(program.outputs)),
        least={symbol: size for symbol, size in captured.smallest.items() if size > SMALLEST},
        numbers={entry.name: numbers for entry in captured.spec if (numbers := _numbers(entry)) is not None},
        provenance=_provenance(source, captured, values),
        head=head,
    )


def make_signature(plan: Plan, captured: Captured, omitted: Mapping[str, str]) -> dict[str, object]:
    """The content of signature.json."""
    roles = {entry.name: entry for entry in captured.spec}
    inputs = {}
    for node in plan.program.main.inputs:
        name, dtype = plan.inputs[node.name]
        entry: dict[str, object] = {"name": name, "dtype": dtype, "shape": _symbolic(node, plan)}
        if "permute" in node.attrs:
            entry["permute"] = list(node.attrs["permute"])  # type: ignore[call-overload]
        inputs[node.name] = entry | _default(roles[node.name], plan, roles)
    graph = plan.program.main
    outputs = {
        path: {"name": name, "dtype": graph[value].tensor.dtype, "shape": _symbolic(graph[value], plan)}
        for path, name, value in zip(plan.program.outputs, plan.outputs, graph.outputs, strict=True)
    }
    samples = sample_inputs(captured.spec, dict(captured.sizes))
    held = {"held": {name: samples[name].tolist() for name in captured.held}} if captured.held else {}
    least = {"least": large} if (large := _least(plan)) else {}
    return {"inputs": inputs, "outputs": outputs, "omitted": dict(omitted), **held, **least}


def _least(plan: Plan) -> dict[str, int]:
    """Of sizes of the inputs that are not free from one on, the smallest: others the package does not take."""
    symbols = {symbol for node in plan.program.main.inputs for symbol in node.tensor.symbols}
    return {symbol: size for symbol, size in plan.least.items() if symbol in symbols}


def _numbers(entry: Input) -> int | list[Any] | None:
    """What `Plan.numbers` says of an input: integers of the user's example may be places, or how many there are."""
    if entry.fill[0] == "randint" and entry.fill[2] <= 1:
        return 0
    if entry.fill[0] == "given" and entry.dtype != "float32" and entry.fill[1].size <= _MOST_GIVEN:
        return entry.fill[1].tolist()
    return None


def _default(entry: Input, plan: Plan, roles: Mapping[str, Input]) -> dict[str, object]:
    """How a caller fills in an input that may be left out: masks with ones, segments with zeros."""
    if entry.role == "mask":
        fill = "ones"
    elif entry.fill == ("zeros",) or entry.name == "token_type_ids":
        fill = "zeros"
    else:
        return {}
    like = next(
        (r for r in roles.values() if r.shape[:2] == entry.shape[:2] and r.role == "data" and r is not entry), None
    )
    return {"default": fill, "like": plan.inputs[like.name][0]} if like and like.name in plan.inputs else {}


def _symbolic(node: Node, plan: Plan) -> list[object]:
    shape = []
    for dim in node.tensor.shape:
        if isinstance(dim, Expr):
            dim = dim.substitute({n: plan.values[n] for n in dim.names if n.startswith("config.")})  # type: ignore[misc]
        shape.append(str(dim) if isinstance(dim, Expr) else dim)
    return shape


def _prefix(source: Source, program: Program) -> str:
    """The package's name in CamelCase, spelt as the model's classes spell it where they do."""
    common = class_prefix(program)
    if common.lower() == source.name.replace("_", ""):
        return common
    return "".join(part.capitalize() for part in source.name.split("_"))


def _dtype(node: Node) -> str:
    return {"int64": "int32", "bool": "bool"}.get(node.tensor.dtype, node.tensor.dtype)


def _input_name(name: str, spec: tuple[Input, ...]) -> str:
    words = {**INPUT_NAMES, **(ENCODER_INPUT_NAMES if any(e.name == DECODER_TOKENS for e in spec) else {})}
    return words.get(name, name)


def _output_names(paths: tuple[str, ...]) -> list[str]:
    words = {**OUTPUT_NAMES, **(ENCODER_OUTPUT_NAMES if "encoder_last_hidden_state" in paths else {})}
    return [words.get(path, re.sub(r"\W", "_", path)) for path in paths]


def _field_names(sources: Sequence[str]) -> dict[str, str]:
    """Constructor argument by config field, for the fields that are printed, in order of use."""
    sources = list(dict.fromkeys(sources))
    names: dict[str, str] = {}
    owners = {_owner(source) for source in sources if _owner(source)}
    places = Counter((source.rpartition(".")[2], _owner(source)) for source in sources)
    for source in sources:
        last = source.rpartition(".")[2]
        name = FIELD_NAMES.get(last, last)
        if places[last, _owner(source)] > 1 and source.count(".") > 1:  # one for each kind of layer
            name = f"{source.split('.')[-2]}_{name}"
        # With several configs in one, whose width it is has to be said.
        if _owner(source) and (len(owners) > 1 or name in names.values()):
            name = f"{_owner(source)}_{name}"
        if name in names.values():
            name = last if last not in names.values() else source.removeprefix("config.").replace(".", "_")
        if name in reserved_attributes():
            name = f"config_{name}"
        names[source] = name
    grouped = {
        name.removesuffix("num_key_value_heads") for name in names.values() if name.endswith("num_key_value_heads")
    }
    for source, name in names.items():
        if name.endswith("num_heads") and name.removesuffix("num_heads") in grouped:
            names[source] = name.removesuffix("num_heads") + "num_query_heads"
    return names


def _owner(source: str) -> str:
    """`vision` of `config.vision_config.hidden_size`; nothing for a field of the model's own config."""
    part = source.removeprefix("config.").rpartition(".")[0].rpartition(".")[2]
    return part.removesuffix("_config") if part.endswith("_config") else ""


def _config_field(source: str, name: str, value: object) -> Field:
    return Field(source, name, value, field_doc(name, value))


def field_doc(name: str, value: object) -> str:
    """What `Args:` says about a constructor argument."""
    kind = {bool: "bool", int: "int", float: "float", str: "string", list: "list"}.get(type(value), "object")
    return f"{kind}. {_DOCS.get(name, name.replace('_', ' ').capitalize() + '.')}"


def _constants(program: Program, taken: set[str]) -> dict[str, tuple[str, np.ndarray]]:
    """Name and value of the constants that are small enough to be data of the constructor, by absolute path."""
    words = {"inv_freq": "inverse_frequencies"}
    found: dict[str, tuple[str, np.ndarray]] = {}
    for path in constant_paths(program):
        array = program.constants[path]
        if array.size > MOST_DATA:
            continue
        last = path.rpartition(".")[2]
        name = words.get(last, last)
        if name in taken or name in reserved_attributes():  # `weights` is a word of Keras's own
            name = re.sub(r"\W", "_", path)
        if name in reserved_attributes():
            name = f"constant_{name}"
        taken.add(name)
        found[path] = (name, array)
    return found


def small_config(plan: Plan, captured: Captured, twinned: Twinned, follows: bool) -> dict[str, object]:
    """Values by `Field.source` of the config that the printed tests build: `Plan.tiny`.

    Args:
        plan: whose fields these are.
        captured: the model.
        twinned: its twin.
        follows: whether the package follows its config. One that does not is right at its own numbers alone: only its
            depth is cut then, where that leaves a model small enough for a test.
    """
    place = 0 if not follows and captured.kept_parameters <= _MOST_TESTED else 1
    small = {f.source: twinned.fields[f.source][place] for f in plan.fields if f.source in twinned.fields}
    for program in twinned.programs[:place]:
        constants = {f"{CONSTANT}{path}": array.tolist() for path, array in program.constants.items()}
        small |= {f.source: constants[f.source] for f in plan.fields if f.source in constants}
    # Deep enough to show a loop, no deeper.
    for source in twinned.depth.values():
        entry = entry_of(source)
        if entry is not None and entry[0] in small:
            owner, number = entry
            values = list(small[owner])  # type: ignore[call-overload]
            values[number] = min(values[number], _SMALL_DEPTH)
            small[owner] = values
        elif source in small:
            depth = int(str(small[source]))
            small |= _of_depth(small, depth, _SMALL_DEPTH) | {source: min(depth, _SMALL_DEPTH)}
    return small


def _of_depth(values: Mapping[str, object], before: int, after: int) -> dict[str, object]:
    """Lists with an entry per layer, cut."""
    return {name: value[:after] for name, value in values.items() if isinstance(value, list) and len(value) == before}


def _provenance(source: Source, captured: Captured, values: Mapping[str, object]) -> dict[str, str]:
    shown = {"model": source.model, "transformers class": source.model_class.__name__}
    for field in ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size"):
        value = getattr(source.config, field, None)
        if isinstance(value, int):
            shown[field.replace("_", " ")] = str(value)
    shown["parameters"] = str(captured.parameters)
    blocks = source_lines(captured.stacks)
    return shown | {f"layers of class {name}": f"lines {lines}" for name, lines in blocks.items()}
