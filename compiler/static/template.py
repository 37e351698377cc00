"""The templates: a generic encoder and a generic decoder of KerasHub's layers, filled in from a config.

What a template has no place for (rotary positions, gates, grouped heads, windows, a norm of another kind) is left out:
a template knows no architecture, and that is its limit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from hf2khc.diagnostics import fail
from hf2khc.driver.naming import field_doc
from hf2khc.passes.keras.vocabulary import FIELD_NAMES
from hf2khc.write.arguments import ordered
from hf2khc.write.layer_class import register
from hf2khc.write.plan import Field
from hf2khc.write.source_text import (
    argument_docs,
    docstring,
    formatted,
    get_config,
    indent,
    init_arguments,
    paragraph,
    signature,
)

_NEEDED = ("vocabulary_size", "num_layers", "num_heads", "hidden_dim")
_OPTIONAL = ("intermediate_dim", "max_sequence_length", "num_segments", "dropout", "layer_norm_epsilon")
_ACTIVATIONS = ("hidden_act", "activation_function", "hidden_activation", "activation")
_WIDENING = 4  # of a feedforward network whose width the config leaves open
_LAYERS = {True: "TransformerDecoder", False: "TransformerEncoder"}


@dataclass(frozen=True)
class Template:
    """A template with its values.

    Args:
        package: name of the package.
        prefix: of the class.
        decoder: the decoder or the encoder.
        causal: with logits on top: a causal language model.
        tied: whether the logits come from the token embedding.
        fields: constructor arguments.
        notes: what the config says that the template cannot take.
    """

    package: str
    prefix: str
    decoder: bool
    causal: bool
    tied: bool
    fields: tuple[Field, ...]
    notes: tuple[str, ...] = ()

    @property
    def values(self) -> dict[str, Any]:
        """The values of the constructor arguments."""
        return {field.name: field.value for field in self.fields}


def fill_template(package: str, config: Any, decoder: bool, causal: bool) -> Template:
    """The template for a config.

    Args:
        package: name of the package.
        config: transformers' config of the whole model.
        decoder: whether each position sees only those before it.
        causal: whether the model gives logits for the next token.

    Raises:
        ConversionError: `no-template`, where neither template can be filled.
    """
    if config.is_encoder_decoder:
        raise _no_template("the model has an encoder and a decoder, and each template is one of them")
    text = config.get_text_config()
    values = argument_values(text)
    lacking = [name for name in _NEEDED if not isinstance(values.get(name), int)]
    if lacking:
        raise _no_template(f"the config gives no {', '.join(lacking)}")
    if values["hidden_dim"] % values["num_heads"]:
        raise _no_template(f"{values['num_heads']} heads do not divide a width of {values['hidden_dim']}")
    values.setdefault("intermediate_dim", _WIDENING * values["hidden_dim"])
    activation, notes = _activation(text)
    wanted = {name: values[name] for name in (*_NEEDED, *_OPTIONAL) if name in values}
    if decoder:
        wanted.pop("num_segments", None)
    fields = [Field(name, name, value, field_doc(name, value)) for name, value in wanted.items()]
    fields.append(Field("activation", "activation", activation, "string. Activation of the feedforward networks."))
    prefix = "".join(part.capitalize() for part in package.split("_"))
    tied = bool(getattr(config, "tie_word_embeddings", True))
    unused = sorted(set(values) - {field.name for field in fields})
    notes += [f"the template has no place for {name} = {values[name]}" for name in unused]
    return Template(package, prefix, decoder, causal and decoder, tied, ordered(fields), tuple(notes))


def argument_values(config: Any) -> dict[str, Any]:
    """The plain values of a config that have a name in KerasHub, by that name; the first field that gives one."""
    found: dict[str, Any] = {}
    for source, name in FIELD_NAMES.items():
        value = getattr(config, source, None)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found.setdefault(name, value)
    return found


def _activation(config: Any) -> tuple[str, list[str]]:
    name = next((str(getattr(config, source)) for source in _ACTIVATIONS if getattr(config, source, None)), "relu")
    try:
        keras.activations.get(name)
    except ValueError:
        return "relu", [f"Keras has no activation of the name {name}; relu stands in its place"]
    return name, []


def _no_template(reason: str) -> Exception:
    message = f"KerasHub has no converter for this model type, and no template fits: {reason}"
    return fail("no-template", message, hint="leave out --static: the compiler reads the model itself")


def backbone_text(template: Template, said: str) -> str:
    """The file of the backbone."""
    layer, values = _LAYERS[template.decoder], template.values
    imports = [
        "import keras",
        f"from keras_hub.layers import {layer}",
        "from keras_hub.layers import ReversibleEmbedding",
    ]
    imports += ["from keras_hub.layers import PositionEmbedding"] if "max_sequence_length" in values else []
    body = ["# === Layers ===", *_layers(template, layer), "", "# === Functional Model ===", *_call(template)]
    body += ["", "# === Config ===", *(f"self.{name} = {name}" for name in values)]
    kind = "decoder" if template.decoder else "encoder"
    docs = [f"{template.prefix}: a generic transformer {kind}, filled in from a config.", "", *paragraph(said), ""]
    arguments = [*init_arguments(template.fields), "dtype=None", "**kwargs"]
    lines = docstring([*docs, "Args:", *argument_docs(template.fields)])
    lines += ["", signature("__init__", arguments), *indent(body), "", *get_config(template.fields)]
    head = [register(template.package), f"class {template.prefix}Backbone(Backbone):", *indent(lines)]
    text = [*imports, "from keras_hub.models import Backbone", "", "", *head]
    return formatted("\n".join(text) + "\n", template.package)


def _layers(template: Template, layer: str) -> list[str]:
    values = template.values
    lines = [
        "self.token_embedding = ReversibleEmbedding(vocabulary_size, hidden_dim, "
        f'tie_weights={template.tied}, dtype=dtype, name="token_embedding")'
    ]
    if "max_sequence_length" in values:
        lines.append(
            'self.position_embedding = PositionEmbedding(max_sequence_length, dtype=dtype, name="position_embedding")'
        )
    if "num_segments" in values:
        embedding = 'keras.layers.Embedding(num_segments, hidden_dim, dtype=dtype, name="segment_embedding")'
        lines.append(f"self.segment_embedding = {embedding}")
    epsilon = "epsilon=layer_norm_epsilon, " if "layer_norm_epsilon" in values else ""
    name = "layer_norm" if template.decoder else "embeddings_layer_norm"
    lines.append(f'self.{name} = keras.layers.LayerNormalization({epsilon}dtype=dtype, name="{name}")')
    own = "layer_norm_epsilon=layer_norm_epsilon, " if "layer_norm_epsilon" in values else ""
    own += "dropout=dropout, " if "dropout" in values else ""
    return [
        *lines,
        "self.transformer_layers = []",
        "for i in range(num_layers):",
        f"    self.transformer_layers.append({layer}(intermediate_dim, num_heads, activation=activation, {own}"
        f'normalize_first={template.decoder}, dtype=dtype, name=f"transformer_layer_{{i}}"))',
    ]


def _call(template: Template) -> list[str]:
    values = template.values
    inputs = {"token_ids": "token_id_input", "padding_mask": "padding_mask_input"}
    inputs |= {"segment_ids": "segment_id_input"} if "num_segments" in values else {}
    lines = [
        f'{variable} = keras.Input(shape=(None,), dtype="int32", name="{name}")' for name, variable in inputs.items()
    ]
    lines.append("x = self.token_embedding(token_id_input)")
    if "max_sequence_length" in values:
        lines.append("x = x + self.position_embedding(x)")
    if "num_segments" in values:
        lines.append("x = x + self.segment_embedding(segment_id_input)")
    mask = "decoder_padding_mask" if template.decoder else "padding_mask"
    layers = ["for layer in self.transformer_layers:", f"    x = layer(x, {mask}=padding_mask_input)"]
    norm = "x = self.layer_norm(x)" if template.decoder else "x = self.embeddings_layer_norm(x)"
    lines += [*layers, norm] if template.decoder else [norm, *layers]
    given = ", ".join(f'"{name}": {variable}' for name, variable in inputs.items())
    return [*lines, f"super().__init__(inputs={{{given}}}, outputs=x, dtype=dtype, **kwargs)"]


def task_text(template: Template) -> str:
    """The file of the causal language model on top of the backbone."""
    backbone = f"{template.prefix}Backbone"
    lines = docstring([f"The logits of {backbone} for the next token."])
    lines += [
        f"backbone_cls = {backbone}",
        "",
        "def __init__(self, backbone, preprocessor=None, **kwargs):",
        "    self.backbone = backbone",
        "    self.preprocessor = preprocessor",
        "    inputs = backbone.input",
        "    outputs = backbone.token_embedding(backbone(inputs), reverse=True)",
        "    super().__init__(inputs=inputs, outputs=outputs, **kwargs)",
    ]
    imports = ["import keras", "from keras_hub.models import CausalLM"]
    imports += [f"from {template.package}.{template.package}_backbone import {backbone}"]
    head = [register(template.package), f"class {template.prefix}CausalLM(CausalLM):", *indent(lines)]
    return formatted("\n".join([*imports, "", "", *head]) + "\n", template.package)


def package_files(template: Template, said: str) -> Mapping[str, str]:
    """The source files of the package by path in it."""
    package = template.package
    files = {f"{package}/{package}_backbone.py": backbone_text(template, said)}
    names = {f"{package}_backbone": f"{template.prefix}Backbone"}
    if template.causal:
        files[f"{package}/{package}_causal_lm.py"] = task_text(template)
        names[f"{package}_causal_lm"] = f"{template.prefix}CausalLM"
    lines = docstring([f"{template.prefix}, made from a template.", "", said])
    exports = [f"from {package}.{module} import {name} as {name}" for module, name in names.items()]
    return {f"{package}/__init__.py": formatted("\n".join([*lines, "", *exports]) + "\n", package), **files}
