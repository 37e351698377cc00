"""The method of a layer that makes an empty cache for it."""

from collections.abc import Mapping, Sequence

from hf2khc.ir.graph import Graph, callee_of
from hf2khc.write.analysis import Analysis
from hf2khc.write.cache import is_cached
from hf2khc.write.members import Member
from hf2khc.write.plan import UPDATE
from hf2khc.write.scope import Scope
from hf2khc.write.source_text import indent, signature

BUILD_CACHE = "build_cache"
SIZES = ("batch_size", "max_length")


def cache_method(analysis: Analysis, graph: Graph, scope: Scope, owned: Mapping[str, Member]) -> list[str]:
    """The method; none where the layer has no cache. A layer that only calls one with a cache has that one's."""
    if not is_cached(analysis.plan, graph.name):
        return []
    updates = graph.of(UPDATE)
    if updates:
        rows: Sequence[tuple] = updates[0].attrs["rows"]  # type: ignore[assignment]
        lines = _zeros([f"({', '.join([*SIZES, *map(scope.static, row)])})" for row in rows])
    else:
        inner = next(node for node in graph.of("call") if is_cached(analysis.plan, callee_of(node)))
        lines = [f"return {owned[inner.name].reference}.{BUILD_CACHE}({', '.join(SIZES)})"]
    return [signature(BUILD_CACHE, SIZES), *indent([_DOCS, *lines])]


def _zeros(shapes: Sequence[str]) -> list[str]:
    same = len(set(shapes)) == 1 < len(shapes)
    values = [f"ops.zeros({'shape' if same else shape}, dtype=self.compute_dtype)," for shape in shapes]
    return [*([f"shape = {shapes[0]}"] if same else []), "return (", *indent(values), ")"]


_DOCS = '"""Build an empty cache for `max_length` positions."""'
