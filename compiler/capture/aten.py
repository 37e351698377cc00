"""Evaluator of torch's own ops: `aten.*`, and those that transformers registers."""

from collections.abc import Mapping

import numpy as np
import torch

from hf2khc.capture.schema import rebuild_call
from hf2khc.diagnostics import fail
from hf2khc.ir.graph import Node
from hf2khc.ir.interpret import Evaluator

# A cast to float32 inside a model means "at least float32".
_WIDE = {torch.float32: torch.float64, torch.complex64: torch.complex128}


def aten_evaluator() -> Evaluator:
    """Evaluates a node with torch on the CPU in float64; for the prefixes `aten` and `transformers`.

    Operands are torch tensors or numpy arrays. 32-bit floats are widened, as operands and as dtype attributes.
    """
    return _evaluate


def use_one_thread() -> None:
    """Let torch compute with one thread in this process from now on."""
    torch.set_num_threads(1)


def _evaluate(node: Node, operands: list, attrs: dict[str, object], env: Mapping[str, object]):
    if node.op in ("aten.view", "aten.view_copy") and "dtype" in attrs:
        raise fail("unsupported-op", f"{node.op} reinterprets bits, which depends on the precision")
    # Without the copies that `contiguous` makes, a view may have to copy.
    op = "aten.reshape" if node.op in ("aten.view", "aten._unsafe_view") else node.op
    if op != node.op:
        attrs = {"shape": attrs["size"]}
    # The rate of training; nothing is dropped in an evaluation.
    attrs = {name: value for name, value in attrs.items() if name != "dropout_p"}
    operands = [_wide(operand) for operand in operands]
    if node.op == "aten.as_strided":
        # It counts along the axes: see `memory_order`.
        operands = [operands[0].contiguous()]
    if node.op == "aten.scaled_dot_product_attention":
        operands = [*operands[:3], *map(_additive, operands[3:])]
    overload, args, kwargs = rebuild_call(op, operands, attrs)
    args = [_WIDE.get(a, a) if isinstance(a, torch.dtype) else a for a in args]
    kwargs = {k: _WIDE.get(v, v) if isinstance(v, torch.dtype) else v for k, v in kwargs.items()}
    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.no_grad():
            value = overload(*args, **kwargs)
    finally:
        torch.set_default_dtype(default)
    return tuple(value) if isinstance(value, list | tuple) else value


def _additive(mask):
    """A mask as numbers to add to the scores.

    What a query gives that may attend to no key is left open: torch's own kernels give 0 or the mean of the values.
    Keras gives the mean, and so does torch when the mask is added.
    """
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
        return mask
    lowest = torch.finfo(torch.float64).min
    return torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, lowest)


def _wide(value):
    if isinstance(value, np.ndarray | np.generic):
        value = torch.as_tensor(value)
    if isinstance(value, torch.Tensor):
        return value.detach().to(_WIDE.get(value.dtype, value.dtype))
    return value
