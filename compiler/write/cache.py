"""How a layer keeps keys and values: its arguments, the update, what it returns."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hf2khc.ir.graph import Node
from hf2khc.write.plan import START, Plan

if TYPE_CHECKING:
    from hf2khc.write.render import Render

UPDATE_INDEX = "cache_update_index"
KEY_LENGTH = "key_length"
# Where a layer's cache has more entries than them.
KEYS_AND_VALUES = "keys_and_values"


def is_cached(plan: Plan, graph: str) -> bool:
    """Whether the class of a graph takes a cache and returns it."""
    return plan.decoding is not None and graph in plan.decoding.cached


def is_indexed(plan: Plan, graph: str) -> bool:
    """Whether the class of a graph is told where its inputs start."""
    return plan.decoding is not None and graph in plan.decoding.indexed


def cache_arguments(plan: Plan, graph: str) -> list[str]:
    """The arguments of `call` for it."""
    if is_cached(plan, graph):
        return ["cache=None", f"{UPDATE_INDEX}=0"]
    return [f"{START}=0"] if is_indexed(plan, graph) else []


def passed_on(plan: Plan, callee: str, start: str, cache: str) -> list[str]:
    """What a layer hands to one of its own.

    Args:
        plan: of the package.
        callee: the graph of the layer that is called.
        start: the caller's argument that says where its inputs start.
        cache: the expression for the callee's cache.
    """
    if is_cached(plan, callee):
        return [f"cache={cache}", f"{UPDATE_INDEX}={start}"]
    return [f"{START}={start}"] if is_indexed(plan, callee) else []


def update_lines(
    node: Node, names: Sequence[str], pinned: Sequence[bool], render: "Render", target: str = "cache"
) -> list[str]:
    """The statements for a `hub.cache_update`.

    Args:
        node: the operation.
        names: variables of its operands, and of its results.
        pinned: whether a value keeps its dtype under every policy; the cache has the dtype of the others.
        render: spells sizes.
        target: the variable for the cache.
    """
    rows: Sequence[tuple] = node.attrs["rows"]  # type: ignore[assignment]
    starts = [f"[{', '.join(['0', UPDATE_INDEX, *'0' * len(row)])}]" for row in rows]
    same = len(set(starts)) == 1
    lines = [f"start = {starts[0]}"] if same else []
    for place, (name, is_pinned) in enumerate(zip(names, pinned, strict=True)):
        new = f"ops.cast({name}, {render.policy})" if is_pinned else name
        lines.append(f"{name} = ops.slice_update(cache[{place}], {'start' if same else starts[place]}, {new})")
    lines.append(f"{target} = ({', '.join(names)}{',' * (len(names) == 1)})")
    after = [f"{KEY_LENGTH} = ops.shape({names[0]})[1]"] if render.graph_reads_cache else []
    return ["if cache is not None:", *("    " + line for line in lines), *after]


def returned_lines(plan: Plan, graph: str, results: Sequence[str], kept: Sequence[str] = ()) -> list[str]:
    """The end of `call`.

    Args:
        plan: of the package.
        graph: the graph of the layer.
        results: the expressions of its results.
        kept: those of the entries of its cache; empty where a variable holds it.
    """
    text = ", ".join(results)
    if is_cached(plan, graph):
        result = f"({text})" if len(results) > 1 else text
        cache = f"({', '.join(kept)}{',' * (len(kept) == 1)})" if kept else "cache"
        return ["if cache is not None:", f"    return {result}, {cache}", f"return {text}"]
    return [f"return {text}"]


def cache_of_layer(plan: Plan) -> str:
    """The expression for the cache of the next layer, of those of a whole model."""
    return f"cache[{index_of_layer(plan)}]"


def index_of_layer(plan: Plan) -> str:
    """The expression for the index of the next layer among those with a cache."""
    return "i" if _is_one_loop(plan) else "len(updated_cache)"


def collected(plan: Plan, name: str, header: str, target: str, call: str) -> list[str]:
    """The statements that call one layer, or in a loop several, each with its part of a model's cache.

    Args:
        plan: of the package.
        name: of the node.
        header: the line that begins the loop; empty for a single call.
        target: the variable of the result.
        call: the expression of the call.
    """
    assert plan.decoding is not None
    layers = plan.decoding.layers
    if _is_one_loop(plan):
        header = re.sub(r"^for (\w+) in (.*):$", r"for i, \1 in enumerate(\2):", header)
    first = ["# Each layer has a cache; they are updated separately.", "updated_cache = []"]
    last = ["cache = updated_cache"]
    body = [f"{target}, next_cache = {call}", "updated_cache.append(next_cache)"]
    lines = [header, *("    " + line for line in body)] if header else body
    return [*(first if name == layers[0] else ()), *lines, *(last if name == layers[-1] else ())]


def _is_one_loop(plan: Plan) -> bool:
    assert plan.decoding is not None
    names = plan.decoding.layers
    return len(names) == 1 and plan.program.main[names[0]].op == "loop"
