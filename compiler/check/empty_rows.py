"""What a query attends to that may attend to no key.

torch's kernel gives nothing, 0. transformers' own eager attention, which adds the lowest number to every score, gives
the mean of all values, and so does Keras. A model may hand such a row on: CLIP pools the first position where it does
not find the end of the text, and left padding masks that.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_MASK = 3  # position among the arguments


class MeanOfAll(TorchFunctionMode):
    """Within it torch's kernel gives what eager attention gives; where every query may see a key nothing changes."""

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is functional.scaled_dot_product_attention:
            mask = args[_MASK] if len(args) > _MASK else kwargs.get("attn_mask")
            if isinstance(mask, torch.Tensor) and mask.dtype == torch.bool and not mask.any(-1).all():
                query = args[0] if args else kwargs["query"]
                # What follows the mask by position follows it still.
                if len(args) > _MASK:
                    args = (*args[:_MASK], _added(mask, query.dtype), *args[_MASK + 1 :])
                else:
                    kwargs["attn_mask"] = _added(mask, query.dtype)
        return func(*args, **kwargs)


def _added(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
