"""Values that are known during a trace: what is computed from numbers alone is computed, and no part of the program.

A model may find sizes from the numbers of an input, such as the grid of an image. Where that input is held at the
numbers of an example, everything that follows from them is known; torch would trace it and then not know a size.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from hf2khc.capture.input_types import Input
from hf2khc.capture.mask_values import MaskValues, really_computed, writes
from hf2khc.diagnostics import fail

# Made of plain numbers, the same at every call.
_MAKERS = {torch.arange, torch.zeros, torch.ones, torch.full, torch.tensor, torch.linspace, torch.eye}
_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


def known_inputs(spec: tuple[Input, ...]) -> tuple[str, ...]:
    """The inputs that can be held: integers that nothing but the example describes."""
    return tuple(entry.name for entry in spec if entry.fill[0] == "given" and entry.dtype in ("int64", "int32", "bool"))


def unknown_sizes(program: ExportedProgram) -> bool:
    """Whether the size of some tensor depends on the numbers in another one."""
    values = (node.meta.get("val") for node in program.graph.nodes if node.op == "call_function")
    return any(
        isinstance(leaf, torch.Tensor) and free_unbacked_symbols(leaf) for v in values for leaf in tree_leaves(v)
    )


@contextmanager
def traced_within(
    model: PreTrainedModel,
    mode: AbstractContextManager,
    held: Mapping[str, torch.Tensor] = MappingProxyType({}),
    masks: Container[str] = (),
) -> Iterator[None]:
    """Within the block the model's forward runs in a mode, which sees its functions before torch.export does.

    Args:
        model: of which the forward is replaced.
        mode: to run it in.
        held: arguments that it is called with besides, by name.
        masks: arguments of zeros and ones.
    """
    forward = model.forward

    def in_mode(**inputs: Any) -> Any:
        with mode, MaskValues(value for name, value in inputs.items() if name in masks):
            return forward(**inputs, **held)

    model.forward = in_mode
    try:
        yield
    finally:
        del model.forward


class KnownValues(TorchFunctionMode):
    """Computes what takes known values alone.

    Args:
        values: tensors that are known from the start.
        makers: functions whose results are known where they are given numbers alone.
    """

    def __init__(self, values: Iterable[torch.Tensor] = (), makers: Container[Callable] = frozenset(_MAKERS)):
        super().__init__()
        self.makers = makers
        # Kept, and so no other object gets the identity of one of them.
        self.known = {id(value): value for value in values}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        given = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        foldable = bool(given) or func in self.makers
        if any(isinstance(leaf, _SYMBOLIC) for leaf in leaves) or not foldable or not all(map(self.knows, given)):
            self.refuse(func, args, given)
            return func(*args, **kwargs)
        return self.compute(func, *args, **kwargs)

    def compute(self, func: Callable, *args: Any, **kwargs: Any) -> Any:
        """What a function gives for known values; known from then on."""
        with really_computed():
            result = func(*args, **kwargs)
        self.known |= {id(leaf): leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)}
        return result

    def knows(self, tensor: torch.Tensor) -> bool:
        return id(tensor) in self.known

    def refuse(self, func: Any, args: Any, given: Sequence[torch.Tensor]) -> None:
        """Refuse a function that is traced where it would make a known value wrong; `given` are its tensors.

        Raises:
            ConversionError: it writes into a known value.
        """
        name = getattr(func, "__name__", "")
        if writes(name) and args and isinstance(args[0], torch.Tensor) and self.knows(args[0]):
            raise fail("not-capturable", f"{name} writes what is traced into a value that is known")
