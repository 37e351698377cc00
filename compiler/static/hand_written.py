"""KerasHub's own converter of a model type, where it has one: its public `from_preset` on the checkpoint."""

from pathlib import Path
from typing import Any

from keras_hub.models import Backbone, CausalLM

from hf2khc.diagnostics import ConversionError, fail
from hf2khc.static.record import Placement, recorded
from hf2khc.write.source_text import docstring, formatted

# What KerasHub's error says about a type that it has no converter for.
NO_CONVERTER = "no converter"


def hand_written(directory: Path, causal: bool) -> tuple[Any, Placement] | None:
    """The model as KerasHub's converter makes it, and what went where; None where KerasHub has no converter.

    Args:
        directory: `config.json` and safetensors.
        causal: whether the model is a causal language model: KerasHub's task is taken then, where there is one.

    Raises:
        ConversionError: `kerashub-converter`, when there is a converter and it fails.
    """
    errors = []
    for kind in (CausalLM, Backbone) if causal else (Backbone,):
        options = {"preprocessor": None} if kind is CausalLM else {}
        try:
            with recorded() as placement:
                return kind.from_preset(str(directory), **options), placement
        except Exception as error:  # KerasHub has no closed list of errors
            if NO_CONVERTER in str(error):
                return None
            errors.append(error)
    raise _failed(directory, errors[-1])


def _failed(directory: Path, error: Exception) -> ConversionError:
    return fail(
        "kerashub-converter",
        "KerasHub has a converter for this model type, and it fails",
        location=str(directory),
        excerpt=f"{type(error).__name__}: {error}"[:600],
        hint="leave out --static: the compiler needs no converter",
    )


def package_text(model: Any, package: str, said: str) -> str:
    """The `__init__.py` of a package whose classes are KerasHub's own."""
    classes = dict.fromkeys(type(part).__name__ for part in (getattr(model, "backbone", model), model))
    names = [f"from keras_hub.models import {name} as {name}" for name in classes]
    lines = docstring([f"{' and '.join(classes)} of KerasHub, with converted weights.", "", said])
    return formatted("\n".join([*lines, "", *names]) + "\n", package)
