"""Results that are computed once: what a pass leaves as it was is not computed again to validate it."""

import hashlib
import weakref
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Any, Generic, TypeVar

import numpy as np

from hf2khc.ir.graph import Node
from hf2khc.ir.interpret import Evaluator

V = TypeVar("V")
# Bytes of the values that one `Recent` holds.
MOST_BYTES = 1 << 30


class Recent(Generic[V]):
    """Values by key, those not asked for longest dropped first once all together exceed a number of bytes."""

    def __init__(self, most_bytes: int = MOST_BYTES):
        self._most, self._held = most_bytes, 0
        self._values: OrderedDict[Hashable, V] = OrderedDict()

    def get(self, key: Hashable) -> V | None:
        """The value of a key, `None` where it is not held."""
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def put(self, key: Hashable, value: V) -> None:
        """Hold an array or a tuple of arrays under a new key."""
        self._values[key] = value
        self._held += _bytes(value)
        while self._held > self._most:
            self._held -= _bytes(self._values.popitem(last=False)[1])


class Memo:
    """Evaluators that remember what they gave, by the op, its attributes and the contents of its operands.

    Evaluators must be functions of these: they neither change an operand nor read the values of symbols.
    """

    def __init__(self) -> None:
        self._results: Recent[Any] = Recent()
        self._digests: dict[int, tuple[weakref.ref, bytes]] = {}

    def over(self, evaluator: Evaluator) -> Evaluator:
        """An evaluator that asks `evaluator` only for what no evaluator of this memo has given."""

        def remembered(node: Node, operands: list, attrs: dict[str, object], env: Mapping[str, object]):
            # Their texts tell apart attributes that are equal but not the same, 1 and True.
            key = (node.op, repr(sorted(attrs.items())), tuple(map(self._digest, operands)))
            found = self._results.get(key)
            if found is None:
                found = evaluator(node, operands, attrs, env)
                self._results.put(key, found)
            return found

        return remembered

    def _digest(self, value) -> bytes | None:
        """What stands for an array: its contents, shape and dtype."""
        if value is None:
            return None
        known = self._digests.get(id(value))
        if known is not None and known[0]() is value:
            return known[1]
        array = value.detach().resolve_conj().resolve_neg().numpy() if hasattr(value, "detach") else value
        digest = hashlib.blake2b(f"{value.dtype}{tuple(value.shape)}".encode(), digest_size=16)
        digest.update(np.ascontiguousarray(array).data)
        self._digests[id(value)] = weakref.ref(value), digest.digest()
        return digest.digest()


def _bytes(value) -> int:
    return sum(map(_bytes, value)) if isinstance(value, tuple) else value.nbytes
