"""How a layer keeps states: what stands before its inputs, what a scan carried last, caches of layers of its own."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hf2khc.ir.expr import simplify
from hf2khc.ir.graph import Graph, Node, callee_of
from hf2khc.write.cache import is_cached
from hf2khc.write.plan import KEEP, UPDATE, Plan, State, states_of

if TYPE_CHECKING:
    from hf2khc.write.scope import Scope


def states(graph: Graph) -> list[State]:
    """What a layer keeps itself; it comes first in its cache."""
    return [state for node in graph.of(KEEP) for state in states_of(node)]


def first_state(graph: Graph) -> int:
    """The index of the first state in a layer's cache: keys and values stand before them."""
    return sum(len(node.used) for node in graph.of(UPDATE))


def parts(plan: Plan, graph: Graph) -> dict[str, int]:
    """The calls of layers whose caches are entries of this layer's, each with its index, behind the states.

    A layer that only calls another one has that one's cache.
    """
    called = [node.name for node in graph.of("call") if is_cached(plan, callee_of(node))]
    own = first_state(graph) + len(states(graph))
    if graph.name == plan.program.entry or (not own and len(called) == 1):
        return {}
    return {name: own + i for i, name in enumerate(called)}


def has_entries(plan: Plan, graph: Graph) -> bool:
    """Whether a layer's cache is made of more than keys and values, or the cache of another one."""
    return bool(states(graph) or parts(plan, graph))


def part_lines(variables: Mapping[str, str], indices: Mapping[str, int]) -> list[str]:
    """The statements that take the caches of layers out of this layer's."""
    return [f"{variables[name]} = None if cache is None else cache[{i}]" for name, i in indices.items()]


def window_lines(node: Node, target: str, value: str, scope: "Scope") -> list[str]:
    """The statements for a `hub.state_window`."""
    state = f"cache[{first_state(scope.graph) + node.attrs['index']}]"
    axis, size = node.attrs["axis"], node.attrs["size"]
    widths = ["(0, 0)"] * node.tensor.rank
    widths[axis] = f"({scope.value(size)}, 0)"
    return [
        "if cache is None:",
        f"    {target} = ops.pad({value}, ({', '.join(widths)}))",
        "else:",
        f"    {target} = ops.concatenate([{state}, {value}], axis={axis})",
    ]


def state_text(node: Node, value: str, graph: Graph) -> str:
    """The expression for a `hub.state`."""
    return f"{value} if cache is None else cache[{first_state(graph) + node.attrs['index']}]"


def next_state(state: State, value: str, scope: "Scope") -> str:
    """The expression for a state behind the inputs, given the value that holds it."""
    if state.size is None:
        return f"{value}[-1]"
    return f"{value}[{':, ' * state.axis}{scope.value(simplify(f'-({state.size})'))}:]"


def empty_states(found: Sequence[State], dtypes: Sequence[str], scope: "Scope") -> list[str]:
    """The expressions for states before the first input."""
    made = []
    for state, dtype in zip(found, dtypes, strict=True):
        shape = f"({', '.join(['batch_size', *map(scope.static, state.row)])})"
        if state.value:
            made.append(f"ops.full({shape}, {state.value!r}, dtype={dtype})")
        else:
            made.append(f"ops.zeros({shape}, dtype={dtype})")
    return made
