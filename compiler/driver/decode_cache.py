"""What a derived graph caches: sequences that a product sums over, as small as they come."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hf2khc.driver.decode_positions import HERE, NoCache, Places
from hf2khc.ir.expr import Expr, evaluate, names_of, simplify
from hf2khc.ir.graph import Node
from hf2khc.ir.types import Tensor
from hf2khc.write.plan import UPDATE

if TYPE_CHECKING:
    from hf2khc.driver.decode_graph import DerivedGraph

# Operations that only arrange what one operand holds: a cache may stand before them.
_ARRANGING = ("ops.repeat", "ops.reshape", "ops.transpose", "ops.swapaxes", "ops.expand_dims", "ops.broadcast_to")
_ANY = 7919
# The axis of positions in what is cached, behind the batch.
_ROWS = 1


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
    def shape(self) -> tuple:
        """Of the cache of one call, batch first; empty where others have it."""
        if not self.cuts:
            return ()
        types = [self._tensor(cut) for cut in self.cuts]
        if self._side_by_side():
            types = [self._beside(types)]
        if any(type_.shape != types[0].shape for type_ in types):
            raise NoCache(f"what {self.owner.graph.name} would cache has several shapes")
        return (types[0].shape[0], len(types), *types[0].shape[1:])

    def _side_by_side(self) -> bool:
        """Whether what is cached differs in width alone, and is one row in the cache: keys wider than their values."""
        shapes = [self._tensor(cut).shape for cut in self.cuts]
        widths, rest = {shape[-1] for shape in shapes}, {shape[:-1] for shape in shapes}
        return len(widths) > 1 and len(rest) == 1

    def _beside(self, types: Sequence[Tensor]) -> Tensor:
        width = simplify(" + ".join(f"({type_.shape[-1]})" for type_ in types))
        return Tensor(types[0].dtype, (*types[0].shape[:-1], width))

    def value(self, node: Node, keys: Places) -> str:
        if node.name in self.cuts:
            return self._updated(node)
        chain = [node.name, *self._arranged(node.name)]
        # Where it is smallest, as KerasHub lays it out, and as near to the product as that may be.
        cut = min(chain, key=lambda name: (self._size(name), self.owner.positions.axes(name) != {1}))
        self.after |= set(chain[: chain.index(cut)])
        if cut == node.name:
            if len(self.owner.positions.axes(cut)) != 1 or not node.tensor.is_floating:
                raise NoCache(
                    f"%{cut} of {self.owner.graph.name} is needed at all positions, and is no sequence to cache"
                )
            self.cuts.append(cut)
            return self._updated(node)
        return self.owner.make(node, keys)

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
        if self._side_by_side():
            self._updated_beside(whole, given, types, node, origin)
            return f"{node.name}_cached"
        self.owner.made[whole] = Node(whole, UPDATE, tuple(given), {"axis": _ROWS}, types, node.loc, origin)
        for index, (cut, type_) in enumerate(zip(self.cuts, types, strict=True)):
            self._taken_out(cut, Node(f"{cut}_cached", "item", (whole,), {"index": index}, type_, origin=origin))
        return f"{node.name}_cached"

    def _updated_beside(
        self, whole: str, given: list[str], types: tuple[Tensor, ...], node: Node, origin: frozenset[str]
    ) -> None:
        """The update of one value that holds all side by side, and each of them cut out of it."""
        row = self.owner.graph.fresh("cache_row")
        new = [self.owner.made[name].tensor for name in given]
        joined, all_rows = self._beside(new), self._beside(types)
        self.owner.add(Node(row, "ops.concatenate", tuple(given), {"axis": -1}, joined, node.loc, origin))
        self.owner.add(Node(whole, UPDATE, (row,), {"axis": _ROWS}, (all_rows,), node.loc, origin))
        self.owner.add(Node(f"{row}_cached", "item", (whole,), {"index": 0}, all_rows, origin=origin))
        start: int | Expr = 0
        for cut, type_ in zip(self.cuts, types, strict=True):
            stop = simplify(f"({start}) + ({type_.shape[-1]})")
            key = ("ellipsis", ("slice", start, stop, None))
            part = Node(f"{cut}_cached", "ops.get_item", (f"{row}_cached",), {"key": key}, type_, node.loc, origin)
            self._taken_out(cut, part)
            start = stop

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
