"""Where in its source the repeated layers of a model are written."""

import inspect
from collections.abc import Mapping

from hf2khc.capture.truncate import Stack


def source_lines(stacks: Mapping[str, Stack]) -> dict[str, str]:
    """The lines of each class of repeated layers, `228-290 of transformers.models.gpt2.modeling_gpt2`, by class name.

    Args:
        stacks: the lists of layers; classes of lists inside the layers of another one are left out.
    """
    found: dict[str, str] = {}
    for path, stack in stacks.items():
        if any(path.startswith(f"{outer}.") for outer in stacks if outer != path):
            continue
        for block in dict.fromkeys(type(layer) for layer in stack.layers):
            try:
                lines, first = inspect.getsourcelines(block)
            except (OSError, TypeError):  # made at run time: nothing to read
                continue
            found[block.__name__] = f"{first}-{first + len(lines) - 1} of {block.__module__}"
    return found
