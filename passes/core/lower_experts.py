"""Lower mixtures of experts, traced as rows sorted by expert, to one product with all experts."""

from dataclasses import dataclass, field

from hf2khc.ir.expr import same
from hf2khc.ir.graph import Node, Program
from hf2khc.ir.types import Tensor
from hf2khc.passes.core.lowering import Builder, broadcast_shape, flag, lower

_PRODUCTS = ("transformers.grouped_mm_fallback", "aten._grouped_mm")
# What computes every entry of a row by itself.
_ELEMENTWISE = {
    *("aten.add", "aten.sub", "aten.mul", "aten.div", "aten.rsub", "aten.neg", "aten.pow", "aten.square", "aten.abs"),
    *("aten.exp", "aten.tanh", "aten.sigmoid", "aten.silu", "aten.gelu", "aten.relu", "aten.softplus", "aten.clamp"),
    *("aten.clamp_min", "aten.minimum", "aten.maximum", "aten.to", "aten._to_copy", "aten.leaky_relu"),
}


def lower_experts(program: Program) -> Program:
    """Turn sort, grouped products, unsort and weighted sum into products of every token with every expert.

    torch sorts the rows so that each expert's lie together, which takes sizes that depend on data. Here every expert
    sees every token, and a table of weights, zero where a token is not sent, adds up what they make of it.

    Before:

        graph Experts(%x: f32[batch, 8], %ids: i64[batch, 2], %weights: f32[batch, 2]) {
          param @kernel: f32[4, 8, 6]
          %flat: i64[batch * 2] = aten.view(%ids, size=(-1,))
          %sort: (i64[batch * 2], i64[batch * 2]) = aten.sort(%flat)
          %sorted: i64[batch * 2] = item(%sort, index=0)
          %order: i64[batch * 2] = item(%sort, index=1)
          %token: i64[batch * 2] = aten.floor_divide(%order, other=2)
          %rows: f32[batch * 2, 8] = aten.index(%x, %token)
          %numbers: f32[batch * 2] = aten.to(%sorted, dtype="float32")
          %counts: f32[4] = aten.histc(%numbers, bins=4, max=3)
          %ends: i32[4] = aten.cumsum(%counts, dim=0, dtype="int32")
          %made: f32[batch * 2, 6] = transformers.grouped_mm_fallback(%rows, @kernel, %ends)
          %active: f32[batch * 2, 6] = aten.silu(%made)
          %shares: f32[batch * 2] = aten.view(%weights, size=(-1,))
          %share: f32[batch * 2] = aten.index(%shares, %order)
          %column: f32[batch * 2, 1] = aten.unsqueeze(%share, dim=-1)
          %weighted: f32[batch * 2, 6] = aten.mul(%active, %column)
          %empty: i64[batch * 2] = aten.empty_like(%order)
          %count: i64[batch * 2] = aten.arange(end=batch * 2)
          %back: i64[batch * 2] = aten.index_put(%empty, %order, %count)
          %unsorted: f32[batch * 2, 6] = aten.index(%weighted, %back)
          %chosen: f32[batch, 2, 6] = aten.view(%unsorted, size=(batch, 2, 6))
          %y: f32[batch, 6] = aten.sum(%chosen, dim=(1,))
          return %y
        }

        entry Experts

    After:

        graph Experts(%x: f32[batch, 8], %ids: i64[batch, 2], %weights: f32[batch, 2]) {
          param @kernel: f32[4, 8, 6]
          %y_made: f32[batch, 4, 6] = ops.einsum(%x, @kernel, subscripts="ti,eio->teo")
          %y_active: f32[batch, 4, 6] = aten.silu(%y_made)
          %y_experts: i64[4] = ops.arange(start=0, stop=4, dtype="int64")
          %y_expand_dims: i64[batch, 2, 1] = ops.expand_dims(%ids, axis=-1)
          %y_is_sent: bool[batch, 2, 4] = ops.equal(%y_expand_dims, %y_experts)
          %y_expand_dims_1: f32[batch, 2, 1] = ops.expand_dims(%weights, axis=-1)
          %y_share: f32[batch, 2, 4] = ops.where(%y_is_sent, %y_expand_dims_1, x2=0.0)
          %y_routing: f32[batch, 4] = ops.sum(%y_share, axis=1)
          %y: f32[batch, 6] = ops.einsum(%y_active, %y_routing, subscripts="teo,te->to")
          return %y
        }

        entry Experts
    """
    return lower(program, "lower_experts", {"aten.sum": _summed})


class _NoExperts(Exception):
    """The rows are not what they should be; they are lowered one op at a time."""


@dataclass
class _Rows:
    """Values of rows sorted by expert, rebuilt as values of (token, expert).

    Args:
        sort: name of the sort.
        each: how many experts a token is sent to.
    """

    builder: Builder
    sort: str
    each: int
    made: dict[str, str] = field(default_factory=dict)

    def node(self, name: str) -> Node:
        return self.builder.graph[name]

    def is_item(self, name: str, index: int) -> bool:
        """Whether a value is the sorted numbers of the experts (0) or the places they came from (1)."""
        node = self.node(name)
        return node.op == "item" and node.used[0] == self.sort and node.attrs["index"] == index

    def dense(self, name: str) -> str:
        """A value of rows as one that broadcasts to (tokens, experts, ...)."""
        if name not in self.made:
            self.made[name] = self._dense(self.node(name))
        return self.made[name]

    def _dense(self, node: Node) -> str:
        if node.op == "aten.index":
            return self._indexed(node)
        if node.op in _PRODUCTS:
            return self._product(node)
        if node.op == "item":
            return self._item(node)
        if node.op == "aten.slice" and node.tensor.rank == 2 and node.attrs.get("dim") in (1, -1):
            return self._along_last(node, node.used[0], node.tensor)
        if node.op in _ELEMENTWISE and node.used:
            operands = [o if self.node(o).tensor.rank == 0 else self.dense(o) for o in node.used]
            shape = broadcast_shape([self.builder.tensor(o).shape for o in operands])
            type_ = Tensor(node.tensor.dtype, shape)
            return self.builder.add(node.op, *operands, type=type_, title=_title(node.name), **node.attrs)
        raise _NoExperts

    def _indexed(self, node: Node) -> str:
        """A token's row, or a row per expert."""
        if len(node.used) != 2 or len(node.operands) != 2:
            raise _NoExperts
        source, index = node.used
        if self.is_item(index, 0):
            return source
        if not self._is_token(index):
            raise _NoExperts
        return self.builder.add("ops.expand_dims", source, axis=1, title="token")

    def _is_token(self, name: str) -> bool:
        node = self.node(name)
        if self.each == 1 and self.is_item(name, 1):
            return True
        return node.op == "aten.floor_divide" and node.attrs.get("other") == self.each and self.is_item(node.used[0], 1)

    def _product(self, node: Node) -> str:
        if len(node.operands) != 3 or node.attrs:
            raise _NoExperts
        rows, weight, ends = node.used
        if self.builder.tensor(weight).rank != 3 or not self._are_ends(ends):
            raise _NoExperts
        x = self.dense(rows)
        made = self.builder.nodes.get(x)
        if made is not None and made.op == "ops.expand_dims":
            return self.builder.add(
                "ops.einsum", made.used[0], weight, subscripts="ti,eio->teo", title=_title(node.name)
            )
        return self.builder.add("ops.einsum", x, weight, subscripts="tei,eio->teo", title=_title(node.name))

    def _are_ends(self, name: str) -> bool:
        """Whether a value says where each expert's rows end: numbers counted from all that there are, added up."""
        total = self.node(name)
        if total.op != "aten.cumsum":
            return False
        count = self.node(total.used[0])
        if (
            count.op != "aten.histc"
            or flag(count, "min", 0) != 0
            or count.attrs.get("max") != count.attrs.get("bins", 100) - 1
        ):
            return False
        numbers = self.node(count.used[0])
        return numbers.op in ("aten.to", "aten._to_copy") and self.is_item(numbers.used[0], 0)

    def _item(self, node: Node) -> str:
        producer = self.node(node.used[0])
        if producer.op not in ("aten.split", "aten.chunk", "aten.split_with_sizes") or producer.attrs.get(
            "dim"
        ) not in (1, -1):
            raise _NoExperts
        if producer.name not in self.made:
            self.made[producer.name] = self._along_last(producer, producer.used[0], producer.type)
        whole = self.made[producer.name]
        types = self.builder.nodes[whole].type
        assert isinstance(types, tuple)
        index = int(str(node.attrs["index"]))
        return self.builder.add("item", whole, type=types[index], title=_title(node.name), index=index)

    def _along_last(self, node: Node, source: str, type_) -> str:
        """An op along the last axis of rows."""
        x = self.dense(source)
        before = self.builder.tensor(x).shape[:-1]
        types = tuple(
            Tensor(t.dtype, (*before, t.shape[-1])) for t in (type_ if isinstance(type_, tuple) else (type_,))
        )
        attrs = {**node.attrs, "dim": -1}
        made = types if isinstance(type_, tuple) else types[0]
        return self.builder.add(node.op, x, type=made, title=_title(node.name), **attrs)


def _title(name: str) -> str:
    return name.lstrip("@")


def _summed(builder: Builder, node: Node) -> list[Node] | None:
    graph = builder.graph
    if node.attrs.get("dim") not in ((1,), (-2,)) or flag(node, "keepdim"):
        return None
    chosen = graph[node.used[0]]
    if chosen.op not in ("aten.view", "aten.reshape") or chosen.tensor.rank != 3:
        return None
    unsorted, each = graph[chosen.used[0]], chosen.tensor.shape[1]
    if unsorted.op != "aten.index" or len(unsorted.used) != 2 or not isinstance(each, int):
        return None
    weighted, back = (graph[name] for name in unsorted.used)
    sort = _sort_behind(builder, back)
    if sort is None or weighted.op != "aten.mul" or len(weighted.used) != 2:
        return None
    ids = graph[graph[sort].used[0]]
    if ids.op not in ("aten.view", "aten.reshape") or not _is_table(builder, ids.used[0], chosen.tensor.shape[0], each):
        return None
    rows = _Rows(builder, sort, each)
    for values, share in (weighted.used, weighted.used[::-1]):
        weights = _weights(rows, share)
        if weights is not None and _is_table(builder, weights, chosen.tensor.shape[0], each):
            try:
                return _mixed(rows, values, weights, ids.used[0])
            except _NoExperts:
                return None
    return None


def _is_table(builder: Builder, name: str, tokens, each: int) -> bool:
    shape = builder.tensor(name).shape
    return len(shape) == 2 and same(shape[0], tokens) and shape[1] == each


def _sort_behind(builder: Builder, back: Node) -> str | None:
    """The sort whose order `back` undoes: at the place that a row came from stands its number."""
    graph = builder.graph
    if back.op != "aten.index_put" or len(back.used) != 3:
        return None
    order, count = graph[back.used[1]], graph[back.used[2]]
    if order.op != "item" or order.attrs["index"] != 1 or graph[order.used[0]].op != "aten.sort":
        return None
    whole = count.op == "aten.arange" and count.attrs.keys() <= {"end", "dtype"}
    return order.used[0] if whole and same(count.attrs["end"], order.tensor.shape[0]) else None


def _weights(rows: _Rows, name: str) -> str | None:
    """The (tokens, each) weights behind a column of the sorted rows' weights."""
    column = rows.node(name)
    if column.op != "aten.unsqueeze" or column.attrs.get("dim") not in (1, -1):
        return None
    share = rows.node(column.used[0])
    if share.op != "aten.index" or len(share.used) != 2 or not rows.is_item(share.used[1], 1):
        return None
    flat = rows.node(share.used[0])
    return flat.used[0] if flat.op in ("aten.view", "aten.reshape") and flat.tensor.rank == 1 else None


def _mixed(rows: _Rows, values: str, weights: str, ids: str) -> list[Node]:
    """What the experts make of every token, weighted by where it is sent."""
    builder = rows.builder
    made = rows.dense(values)
    shape = builder.tensor(made).shape
    if len(shape) != 3:
        raise _NoExperts
    dtype = builder.tensor(ids).dtype
    experts = builder.add("ops.arange", start=0, stop=shape[1], dtype=dtype, title="experts")
    sent = builder.add("ops.equal", builder.add("ops.expand_dims", ids, axis=-1), experts, title="is_sent")
    share = builder.add(
        "ops.where", sent, builder.add("ops.expand_dims", weights, axis=-1), None, x2=0.0, title="share"
    )
    routing = builder.add("ops.sum", share, axis=1, title="routing")
    return builder.finish("ops.einsum", made, routing, subscripts="teo,te->to")
