"""Why torch does not trace a model."""

import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

from transformers import PreTrainedModel

from hf2khc.diagnostics import ConversionError, fail


def refusal(model: PreTrainedModel, error: Exception) -> ConversionError:
    """What a user is told where torch does not trace a model, with the line of the model's own that stops it."""
    location = next(iter(_places(model, error)), type(model).__name__)
    lines = [line for line in str(error).splitlines() if line.strip()]
    return fail(
        "not-capturable",
        f"torch.export does not take {type(model).__name__}: {type(error).__name__}",
        location=location,
        excerpt="\n".join(line[:160] for line in lines[:6]),
        hint="the line branches on data or uses what torch cannot trace;\n"
        "another class of the model (--task) may leave it out",
    )


def _places(model: PreTrainedModel, error: Exception) -> Iterator[str]:
    """Source lines of the model's own modules in the traceback, the innermost first."""
    paths = {id(module): name for name, module in model.named_modules()}
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    lines = [line for _, line in traceback.walk_tb(error.__traceback__)]
    for frame, line in zip(reversed(frames), reversed(lines), strict=True):
        module = _module_of(frame, paths)
        if module is not None:
            yield f"{frame.f_code.co_filename}:{line}  ({type(module).__name__}, {paths[id(module)] or 'model'})"


def _module_of(frame: FrameType, paths: dict[int, str]) -> Any:
    module = frame.f_locals.get("self")
    foreign = ("torch", "transformers.exporters")
    if id(module) not in paths or frame.f_globals.get("__name__", "").startswith(foreign):
        return None
    return module
