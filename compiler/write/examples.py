"""A small config and small inputs as Python text, for the docstring and the tests."""

from collections.abc import Mapping

from hf2khc.ir.expr import evaluate
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
    symbols = {name: sizes.get(name, _usual(name, plan)) for name in names if name not in plan.values}
    return int(evaluate(dim, {**symbols, **plan.tiny_values}))


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
    """A dict of arrays of ones for the model's inputs, of zeros where only they are in range."""
    items = []
    for node in plan.program.main.inputs:
        name, dtype = plan.inputs[node.name]
        fill = "zeros" if node.name in plan.zeros else "ones"
        items.append(f'"{name}": np.{fill}({shape(node.tensor, plan, sizes)}, dtype="{dtype}"),')
    return "{" + " ".join(items) + "}"
