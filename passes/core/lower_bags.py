"""Lower bags of embeddings: rows that are looked up and summed."""

from hf2khc.ir.graph import Node, Program
from hf2khc.passes.core.lowering import Builder, lower

# By torch's number of a mode.
_MODES = ("ops.sum", "ops.mean", "ops.max")


def lower_bags(program: Program) -> Program:
    """Turn bags of as many rows each into rows, times their weights, and a reduction.

    Before:

        graph Grid(%table: f32[8, 4], %places: i64[12], %weights: f32[12]) {
          %first: i64[3] = aten.arange(start=0, end=12, step=4)
          %bags: (f32[3, 4], i64[0], i64[3], i64[3]) = aten.embedding_bag(%table, %places, %first, %weights, mode=0)
          %y: f32[3, 4] = item(%bags, index=0)
          return %y
        }

        entry Grid

    After:

        graph Grid(%table: f32[8, 4], %places: i64[12], %weights: f32[12]) {
          %y_places: i64[3, 4] = ops.reshape(%places, newshape=(3, 4))
          %y_rows: f32[3, 4, 4] = ops.take(%table, %y_places, axis=0)
          %y_weights: f32[3, 4, 1] = ops.reshape(%weights, newshape=(3, 4, 1))
          %y_weighted: f32[3, 4, 4] = ops.multiply(%y_rows, %y_weights)
          %y: f32[3, 4] = ops.sum(%y_weighted, axis=1)
          return %y
        }

        entry Grid
    """
    return lower(program, "lower_bags", {}, {"aten.embedding_bag": _bag})


def _bag(builder: Builder, producer: Node) -> list[Node] | None:
    """The first result, where the bags begin at regular distances and no row is left out."""
    table, places, first, *weights = producer.operands
    begins = builder.graph[first] if first else None
    regular = begins is not None and begins.op == "aten.arange" and begins.attrs.get("start", 0) == 0
    if builder.root.attrs["index"] != 0 or not regular or producer.attrs.get("padding_idx") is not None:
        return None
    count, size = begins.tensor.shape[0], begins.attrs.get("step", 1)  # type: ignore[union-attr]
    of_bags = builder.add("ops.reshape", places, newshape=(count, size), title="places")
    rows = builder.add("ops.take", table, of_bags, axis=0, title="rows")
    for given in filter(None, weights):
        column = builder.add("ops.reshape", given, newshape=(count, size, 1), title="weights")
        rows = builder.add("ops.multiply", rows, column, title="weighted")
    return builder.finish(_MODES[int(producer.attrs.get("mode", 0))], rows, axis=1)
