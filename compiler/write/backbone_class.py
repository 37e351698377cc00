"""From the entry graph to the file of the backbone."""

from collections.abc import Mapping

from hf2khc.diagnostics import fail
from hf2khc.ir.expr import Expr
from hf2khc.ir.graph import Node
from hf2khc.write.analysis import Analysis
from hf2khc.write.arguments import ordered
from hf2khc.write.body import Body
from hf2khc.write.construction import ClassHead, Construction
from hf2khc.write.examples import constructor_call, input_data
from hf2khc.write.layer_class import class_imports, register
from hf2khc.write.members import members
from hf2khc.write.names import input_variable
from hf2khc.write.plan import Field, Plan
from hf2khc.write.render import Render
from hf2khc.write.scope import Scope
from hf2khc.write.source_text import (
    argument_docs,
    docstring,
    entry,
    fitted,
    formatted,
    get_config,
    indent,
    init_arguments,
    paragraph,
    signature,
)
from hf2khc.write.token_embedding import token_embedding

_DTYPE = (
    "string or `keras.mixed_precision.DTypePolicy`. The dtype of computations and weights. Softmax and normalization "
    "are computed in float32 whatever it is."
)


def write_backbone(analysis: Analysis, heads: Mapping[str, ClassHead]) -> str:
    """The unformatted text of the backbone's file."""
    plan, graph = analysis.plan, analysis.plan.program.main
    scope = Scope(analysis, graph, owner="")
    owned = members(analysis, graph)
    layers = Construction(analysis, graph, scope, heads, builds=False).lines(owned)
    body = _functional(analysis, Render(analysis, graph, scope, owned, training=False), scope)
    fields = ordered(plan.fields)
    init = ["# === Layers ===", *layers, "", "# === Functional Model ===", *body, "", "# === Config ==="]
    init += [f"self.{f.name} = {f.name}" for f in fields]
    arguments = [*init_arguments(fields), "dtype=None", "**kwargs"]
    lines = docstring(_docs(plan, fields)) + ["", signature("__init__", arguments), *indent(init)]
    embedding = token_embedding(analysis)
    lines += ["", *embedding, "", *get_config(fields)] if embedding else ["", *get_config(fields)]
    imports = [*class_imports(analysis, graph, heads), "from keras_hub.models import Backbone"]
    head = [register(plan.package), f"class {plan.prefix}Backbone(Backbone):"]
    return "\n".join([*imports, "", "", *head, *indent(lines)]) + "\n"


def _functional(analysis: Analysis, render: Render, scope: Scope) -> list[str]:
    plan, graph = analysis.plan, analysis.plan.program.main
    if len(plan.outputs) != len(graph.outputs):
        raise fail("package-outputs", f"{len(graph.outputs)} outputs have the names {', '.join(plan.outputs)}")
    variables = {node.name: input_variable(plan.inputs[node.name][0]) for node in graph.inputs}
    taken = {field.name for field in plan.fields} | {"dtype", "kwargs"}
    body = Body(analysis, graph, render, variables, kept=variables.values(), taken=taken, outputs=plan.outputs)
    lines = [_input(node, variables[node.name], plan, scope) for node in graph.inputs] + body.lines()
    returned = body.returned()
    inputs = [f'"{plan.inputs[node.name][0]}": {variables[node.name]},' for node in graph.inputs]
    outputs = [fitted(f'"{name}": ', value, 16) + "," for name, value in zip(plan.outputs, returned, strict=True)]
    lines += ["super().__init__(", "    inputs={", *indent(inputs, 2), "    },"]
    if len(outputs) == 1:
        lines += [f"    outputs={returned[0]},"]
    else:
        lines += ["    outputs={", *indent(outputs, 2), "    },"]
    return [*lines, "    dtype=dtype,", "    **kwargs,", ")"]


def _input(node: Node, variable: str, plan: Plan, scope: Scope) -> str:
    name, dtype = plan.inputs[node.name]
    batch, *rest = node.tensor.shape
    # A batch that the trace did not free, or an input without one: patches of all images in one row.
    kind, shape = ("shape", rest) if isinstance(batch, Expr) else ("batch_shape", node.tensor.shape)
    return f'{variable} = keras.Input({kind}={scope.shape(shape)}, dtype="{dtype}", name="{name}")'


def _docs(plan: Plan, fields: tuple[Field, ...]) -> list[str]:
    lines = paragraph(f"{plan.prefix} core network with hyperparameters.") + [""]
    lines += paragraph(
        "The default constructor gives a randomly initialized model of any size. To load a preset's architecture and "
        "weights, use the `from_preset()` constructor."
    )
    if plan.provenance:
        lines += ["", *paragraph("The defaults, and the weights of the preset that comes with it, are those of:"), ""]
        for label, text in plan.provenance.items():
            lines += paragraph(f"- {label}: {text}")
    lines += ["", "Args:", *argument_docs(fields), *entry("dtype", _DTYPE)]
    return [*lines, "", "Example:", "", "```python", *_example(plan), "```"]


def _example(plan: Plan) -> list[str]:
    name = f"{plan.prefix}Backbone"
    text = "\n".join([
        "input_data = " + input_data(plan, {"batch": 1}),
        "",
        f"# Randomly initialized {plan.prefix} with a custom config.",
        "model = " + constructor_call(plan, name),
        "model(input_data)",
    ])  # fmt: skip
    shaped = formatted(f"import numpy as np\nfrom {plan.package} import {name}\n\n{text}\n", plan.package, 76)
    return shaped.rstrip("\n").splitlines()
