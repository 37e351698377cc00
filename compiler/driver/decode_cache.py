"""What a derived graph caches: sequences that a product sums over, as small as they come."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from hf2khc.driver.decode_positions import HERE, NoCache, Places
from hf2khc.ir.expr import evaluate, names_of
from hf2khc.ir.graph import Node
from hf2khc.ir.types import Tensor
from hf2khc.write.plan import UPDATE

if TYPE_CHECKING:
    from hf2khc.driver.decode_graph import DerivedGraph

# Operations that only arrange what one operand holds: a cache may stand before them.
_ARRANGING = ("ops.repeat", "ops.reshape", "ops.transpose", "ops.swapaxes", "ops.expand_dims", "ops.broadcast_to")
_ANY = 7919


class Cache:
    """The values of a graph that are cached.

    Args:
        owner: the graph while it is derived.
    """

    def __init__(self, owner: "DerivedGraph"):
        self.owner = owner
        self.cuts: list[str] = []
        self.after: set[str] = set()

    @property
    def rows(self) -> tuple[tuple, ...]:
        """The shape of every cached value without its batch and its positions.

        Raises:
            NoCache: where it is no row for each position of each sequence, of a size that is known beforehand.
        """
        return tuple(self._row(cut) for cut in self.cuts)

    def _row(self, cut: str) -> tuple:
        batch, _, *row = self._tensor(cut).shape
        if str(batch) != "batch":
            raise NoCache("keys and values hold the heads on the axis of the batch")
        if not self.owner.knows(tuple(row)):
            raise NoCache(f"what {self.owner.graph.name} would cache has a size that only a call knows")
        return tuple(row)

    def value(self, node: Node, keys: Places) -> str:
        if node.name in self.cuts:
            return self._updated(node)
        chain = [node.name, *self._arranged(node.name)]
        # Where it is smallest, as KerasHub lays it out, and as near to the product as that may be.
        cut = min(chain, key=lambda name: (self._size(name), self.owner.positions.axes(name) != {1}))
        self.after |= set(chain[: chain.index(cut)])
        if cut == node.name:
            if not self._is_sequence(cut):
                raise NoCache(
                    f"%{cut} of {self.owner.graph.name} is needed at all positions, and is no sequence to cache"
                )
            self.cuts.append(cut)
            return self._updated(node)
        return self.owner.make(node, keys)

    def _is_sequence(self, name: str) -> bool:
        """Whether a value has one entry for each position along one axis."""
        axes, type_ = self.owner.positions.axes(name), self.owner.graph[name].tensor
        sizes = [str(type_.shape[axis]) for axis in axes]
        return sizes == [self.owner.positions.symbol] and type_.is_floating

    def _arranged(self, name: str) -> Iterator[str]:
        """The values behind one that only arrange, of one sequence each."""
        while self.owner.graph[name].op in _ARRANGING and self.owner.graph[name].used[0] in self.owner.data:
            name = self.owner.graph[name].used[0]
            if len(self.owner.positions.axes(name)) != 1:
                return
            yield name

    def _size(self, name: str) -> float:
        shape = self.owner.graph[name].tensor.shape
        sizes = self.owner.derivation.values
        return math.prod(float(evaluate(dim, {n: sizes.get(n, _ANY) for n in names_of(dim)})) for dim in shape)

    def _updated(self, node: Node) -> str:
        """The value with all that came before it: one operation updates the cache, and gives all values of it."""
        whole = self.owner.graph.fresh("cache_update")
        given = [self._laid_out(cut) for cut in self.cuts]
        types = tuple(self._tensor(cut) for cut in self.cuts)
        origin = frozenset().union(*(self.owner.graph[cut].origin for cut in self.cuts))
        self.owner.made[whole] = Node(whole, UPDATE, tuple(given), {"rows": self.rows}, types, node.loc, origin)
        for index, (cut, type_) in enumerate(zip(self.cuts, types, strict=True)):
            self._taken_out(cut, Node(f"{cut}_cached", "item", (whole,), {"index": index}, type_, origin=origin))
        return f"{node.name}_cached"

    def _laid_out(self, cut: str) -> str:
        """A value with its positions on the axis on which a cache has them."""
        name, order = self.owner.want(cut, HERE), self._order(cut)
        if order == sorted(order):
            return name
        node, shape = self.owner.graph[cut], self.owner.graph[cut].tensor.shape
        type_ = Tensor(node.tensor.dtype, tuple(shape[axis] for axis in order))
        attrs = {"axes": tuple(order)}
        return self.owner.add(
            replace(node, name=f"{cut}_rows", op="ops.transpose", operands=(name,), attrs=attrs, type=type_)
        )

    def _taken_out(self, cut: str, item: Node) -> None:
        order = self._order(cut)
        if order == sorted(order):
            self.owner.add(item)
            return
        self.owner.add(replace(item, name=f"{cut}_rows_cached"))
        back = {"axes": tuple(order.index(axis) for axis in range(len(order)))}
        type_ = self.owner.positions.type(self.owner.graph[cut], self.owner.positions.axes(cut))
        operands = (f"{cut}_rows_cached",)
        self.owner.add(replace(item, op="ops.transpose", operands=operands, attrs=back, type=type_))

    def _order(self, cut: str) -> list[int]:
        """The axes of a value in the order of the cache."""
        (axis,) = self.owner.positions.axes(cut)
        rest = [i for i in range(1, self.owner.graph[cut].tensor.rank) if i != axis]
        return [0, axis, *rest]

    def _tensor(self, cut: str) -> Tensor:
        """The type of a value in the cache."""
        type_ = self.owner.positions.type(self.owner.graph[cut], self.owner.positions.axes(cut))
        assert isinstance(type_, Tensor)
        return Tensor(type_.dtype, tuple(type_.shape[axis] for axis in self._order(cut)))
