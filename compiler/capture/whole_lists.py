"""Lists of layers that a model's own code does not let be cut."""

from collections.abc import Mapping, Sequence

from transformers import PreTrainedConfig, PreTrainedModel

from hf2khc.capture.build import build_meta
from hf2khc.capture.input_types import Example
from hf2khc.capture.inputs import input_spec, sample_inputs
from hf2khc.capture.shapes_alone import run_in_shapes
from hf2khc.capture.truncate import truncate


def whole_lists(
    config: PreTrainedConfig, model_class: type[PreTrainedModel], examples: Sequence[Example], sizes: Mapping[str, int]
) -> frozenset[str] | None:
    """The lists of layers with which cut, each by itself, the model no longer runs: it reaches for them by number.

    Args:
        config: of a model that does not run with all of them cut.
        model_class: its class.
        examples: inputs that the user gave.
        sizes: of the symbols among the sizes of the inputs.

    Returns:
        Module paths; None where the model does not run whole either.
    """
    lists = [path for path, stack in truncate(build_meta(config, model_class)).items() if stack.cut]

    def runs(cut: Sequence[str]) -> bool:
        model = build_meta(config, model_class)
        truncate(model, frozenset(lists) - frozenset(cut))
        try:
            run_in_shapes(model, sample_inputs(input_spec(model, examples), dict(sizes)))
        except Exception:  # a model's own code may fail in any way
            return False
        return True

    return frozenset(path for path in lists if not runs([path])) if runs([]) else None
