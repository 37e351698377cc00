"""Masks that transformers makes in a trace alone: where it is given none, and everything may be attended to."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

from transformers import masking_utils


@contextmanager
def absent_masks_stay_absent() -> Iterator[None]:
    """Within the block no mask is made of none for attention in both directions, as when a model is called.

    In a trace transformers makes one that is true everywhere. Some models never meet it otherwise, and fail: those that
    shorten a sequence between their layers (Informer), or have other numbers of queries than of keys (Nemotron 3).
    """
    skips = masking_utils._ignore_bidirectional_mask_sdpa
    with mock.patch.object(masking_utils, skips.__name__, _also_without(skips)):
        yield


def _also_without(skips: Callable[..., bool]) -> Callable[..., bool]:
    def skipped(padding_mask, kv_length, local_attention_size=None) -> bool:
        if padding_mask is None and local_attention_size is None:
            return True
        return skips(padding_mask, kv_length, local_attention_size)

    return skipped
