"""The method of a layer that makes an empty cache for it."""

from collections.abc import Mapping, Sequence

from hf2khc.ir.graph import Graph, callee_of
from hf2khc.write.analysis import Analysis
from hf2khc.write.cache import is_cached
from hf2khc.write.members import Member
from hf2khc.write.plan import KEEP, SCANNED, UPDATE
from hf2khc.write.render import pinned_values
from hf2khc.write.scope import Scope
from hf2khc.write.source_text import indent, signature
from hf2khc.write.states import empty_states, has_entries, parts, states

BUILD_CACHE = "build_cache"
SIZES = ("batch_size", "max_length")


def cache_method(analysis: Analysis, graph: Graph, scope: Scope, owned: Mapping[str, Member]) -> list[str]:
    """The method; none where the layer has no cache. A layer that only calls one with a cache has that one's."""
    if not is_cached(analysis.plan, graph.name):
        return []
    if graph.of(UPDATE) or has_entries(analysis.plan, graph):
        rows = [row for node in graph.of(UPDATE) for row in node.attrs["rows"]]
        first, entries = _zeros([f"({', '.join([*SIZES, *map(scope.static, row)])})" for row in rows])
        entries += empty_states(states(graph), _dtypes(graph), scope)
        entries += [_built(owned[name]) for name in parts(analysis.plan, graph)]
        lines = [*first, "return (", *indent([f"{entry}," for entry in entries]), ")"]
    else:
        only = next(node for node in graph.of("call") if is_cached(analysis.plan, callee_of(node)))
        lines = [f"return {_built(owned[only.name])}"]
    return [signature(BUILD_CACHE, SIZES), *indent([_DOCS, *lines])]


def _built(member: Member) -> str:
    return f"{member.reference}.{BUILD_CACHE}({', '.join(SIZES)})"


def _dtypes(graph: Graph) -> list[str]:
    """The expressions for the dtypes of the states: that of the policy where the value has that."""
    pinned = pinned_values(graph)
    sources = [name for node in graph.of(KEEP) for name in node.used[1:]]
    return [f'"{SCANNED}"' if pinned[name] else "self.compute_dtype" for name in sources]


def _zeros(shapes: Sequence[str]) -> tuple[list[str], list[str]]:
    """The expressions for keys and values before the first ones, and the statements before those."""
    same = len(set(shapes)) == 1 < len(shapes)
    entries = [f"ops.zeros({'shape' if same else shape}, dtype=self.compute_dtype)" for shape in shapes]
    return [f"shape = {shapes[0]}"] if same else [], entries


_DOCS = '"""Build an empty cache for `max_length` positions."""'
