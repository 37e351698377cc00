"""Inputs of the model that a derived graph is given for a size that nothing else shows."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hf2khc.driver.decode_positions import NoCache
from hf2khc.ir.expr import Expr, names_of
from hf2khc.ir.graph import Node
from hf2khc.ir.types import Tensor, plain_symbols
from hf2khc.write.plan import KEYS

if TYPE_CHECKING:
    from hf2khc.driver.decode_graph import DerivedGraph


class Lent:
    """The inputs of a graph beside its own: its mask, as long as the whole sequence, or its tokens.

    Args:
        owner: the graph while it is derived.
    """

    def __init__(self, owner: "DerivedGraph"):
        self.owner = owner
        self.names: list[str] = []

    def name(self, given: str) -> str:
        """What an input of the model is called in the graph, from now on one of its own."""
        if given not in self.names:
            self.names.append(given)
        return self.owner.graph.fresh("token_ids" if self._is_tokens(given) else "padding_mask")

    def inputs(self, inputs: Sequence[Node], nodes: Sequence[Node]) -> list[Node]:
        """All of them, given the graph's own inputs and what it computes."""
        shows_keys = self.owner.cache.cuts or any(_shows(node, KEYS) for node in inputs)
        if self.owner.has_keys and not shows_keys:
            mask = self.owner.derivation.mask
            if mask is None:
                raise NoCache(f"{self.owner.graph.name} cannot know how long the sequence is")
            self.name(mask.name)
        shown = {symbol for node in inputs for symbol in plain_symbols(node.type)}
        asked = {symbol for node in nodes for value in node.attrs.values() for symbol in names_of(value)}
        if self.owner.positions.symbol in asked - shown:
            self.name(self.owner.derivation.tokens.name)
        return [self._input(given) for given in self.names]

    def _input(self, given: str) -> Node:
        node = self.owner.derivation.program.main[given]
        size = self.owner.positions.symbol if self._is_tokens(given) else KEYS
        type_ = Tensor(node.tensor.dtype, (node.tensor.shape[0], Expr(size)))
        return replace(node, name=self.name(given), type=type_)

    def _is_tokens(self, given: str) -> bool:
        return given == self.owner.derivation.tokens.name


def _shows(node: Node, symbol: str) -> bool:
    return any(isinstance(dim, Expr) and dim.text == symbol for dim in node.tensor.shape)
