"""A small config and small inputs as Python text, for the docstring and the tests."""

from collections.abc import Mapping

import numpy as np

from hf2khc.ir.expr import evaluate
from hf2khc.ir.graph import Node
from hf2khc.ir.types import Tensor
from hf2khc.write.arguments import has_default, ordered
from hf2khc.write.expressions import literal
from hf2khc.write.plan import Plan

# Sizes of the example where nothing else is said.
_BATCH, _LENGTH = 2, 12


def tiny_config(plan: Plan) -> Mapping[str, object]:
    """Constructor arguments of the small config by name: the required ones and those other than the default."""
    chosen = {}
    for field in ordered(plan.fields):
        value = plan.tiny.get(field.source, field.value)
        if not has_default(field) or value != field.value:
            chosen[field.name] = value
    return chosen


def constructor_call(plan: Plan, name: str) -> str:
    """A call of the backbone's constructor at the small config."""
    arguments = [f"{key}={argument(value)}" for key, value in tiny_config(plan).items()]
    # The comma behind the last one keeps each on a line of its own.
    return f"{name}({', '.join(arguments)}{',' if arguments else ''})"


def argument(value) -> str:
    """A JSON value as Python text."""
    if isinstance(value, list):
        return f"[{', '.join(map(argument, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{k}": {argument(v)}' for k, v in value.items()) + "}"
    return literal(value, str)


def size(dim, plan: Plan, sizes: Mapping[str, int]) -> int:
    """A dimension of an input or output in the small config."""
    names = dim.names if hasattr(dim, "names") else ()
    symbols = {name: _taken(name, sizes, plan) for name in names if name not in plan.values}
    return int(evaluate(dim, {**symbols, **plan.tiny_values}))


def _taken(symbol: str, sizes: Mapping[str, int], plan: Plan) -> int:
    """The size that is asked for, or as much above the smallest one where the model takes none as small."""
    asked, least = sizes.get(symbol, _usual(symbol, plan)), plan.least.get(symbol, 0)
    return asked if asked >= least else least + asked


def _usual(symbol: str, plan: Plan) -> int:
    """The size of a symbol where nothing else is said: of samples more than the filters at the beginning take."""
    if symbol == "batch":
        return _BATCH
    least = plan.least.get(symbol, 0)
    return _LENGTH if least <= _LENGTH else 2 * least


def shape(type_: Tensor, plan: Plan, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of an input or output in the small config."""
    return tuple(size(dim, plan, sizes) for dim in type_.shape)


def input_data(plan: Plan, sizes: Mapping[str, int]) -> str:
    """A dict of arrays for the model's inputs: of ones, or of `Plan.numbers`."""
    items = []
    for node in plan.program.main.inputs:
        name, dtype = plan.inputs[node.name]
        items.append(f'"{name}": np.{_array(node, plan, sizes)}, dtype="{dtype}"),')
    return "{" + " ".join(items) + "}"


def _array(node: Node, plan: Plan, sizes: Mapping[str, int]) -> str:
    """The call that makes an input, open at its end."""
    numbers, wanted = plan.numbers.get(node.name, 1), shape(node.tensor, plan, sizes)
    if isinstance(numbers, list):
        rows = np.array(numbers)
        if rows.shape == wanted:
            return f"array({numbers}"
        if rows.shape[1:] == wanted[1:] and (rows == rows[:1]).all():
            return f"array({numbers[:1]} * {wanted[0]}"
    return f"{'zeros' if numbers == 0 else 'ones'}({wanted}"
