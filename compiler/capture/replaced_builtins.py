"""Python's own functions as a model's code calls them, replaced for a trace."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from transformers import PreTrainedModel


@contextmanager
def replaced_builtins(model: PreTrainedModel, **functions: Callable[..., Any]) -> Iterator[None]:
    """Within the block the model's own code calls these instead of Python's functions of the same names.

    Args:
        model: the files of its modules' classes, those of torch apart, are meant.
        functions: by name, such as `len`.
    """
    names = sorted({type(module).__module__ for module in model.modules()})
    with ExitStack() as stack:
        for name in names:
            if name.partition(".")[0] != "torch" and name in sys.modules:
                for function, replacement in functions.items():
                    stack.enter_context(mock.patch.object(sys.modules[name], function, replacement, create=True))
        yield
