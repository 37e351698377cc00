"""What a forward pass leaves in the modules of a model."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch.nn import Module


@contextmanager
def state_kept(model: Module) -> Iterator[None]:
    """What the modules hold is as before after the block: a forward pass in shapes leaves tensors without numbers.

    Args:
        model: of which attributes, buffers, parameters, and what stands in lists and dictionaries among them are meant.
    """
    stores = [store for module in model.modules() for store in _stores(module)]
    before = [store.copy() for store in stores]
    try:
        yield
    finally:
        for store, kept in zip(stores, before, strict=True):
            store.clear()
            store.extend(kept) if isinstance(store, list) else store.update(kept)


def _stores(module: Module) -> Iterator[dict | list]:
    attributes = vars(module)
    yield attributes
    yield from (value for value in attributes.values() if isinstance(value, dict | list))
