"""From the head of a model to the file of a task."""

from collections.abc import Mapping
from dataclasses import replace

from hf2khc.write.analysis import Analysis
from hf2khc.write.arguments import ordered
from hf2khc.write.body import Body
from hf2khc.write.construction import ClassHead, Construction
from hf2khc.write.generation import ARGUMENTS, DEFAULTS, generation
from hf2khc.write.layer_class import class_imports, register
from hf2khc.write.members import Member, members
from hf2khc.write.names import snake
from hf2khc.write.plan import IMAGE_CLASSIFIER, Field, Plan
from hf2khc.write.preprocessor_class import preprocessor_class, preprocessor_module
from hf2khc.write.render import Render
from hf2khc.write.scope import Scope
from hf2khc.write.source_text import (
    argument_docs,
    docstring,
    entry,
    fitted,
    get_config,
    indent,
    init_arguments,
    paragraph,
    signature,
)
from hf2khc.write.split import backbone_plan, task_fields, task_program

# Attributes of KerasHub's tasks, beside those of every model.
_RESERVED = frozenset({"backbone", "preprocessor", "backbone_cls", "preprocessor_cls", "sampler", "generate_function"})
_LOCALS = {"backbone", "preprocessor", "inputs", "outputs", "kwargs"}
_WHAT = {
    "CausalLM": "An end-to-end {} model for causal language modeling.",
    "Seq2SeqLM": "An end-to-end {} model for seq2seq language modeling.",
    "MaskedLM": "An end-to-end {} model for the masked language modeling task.",
    "TextClassifier": "An end-to-end {} model for classification tasks.",
    IMAGE_CLASSIFIER: "An end-to-end {} model for image classification tasks.",
}


def task_class(plan: Plan) -> str:
    """The name of the task's class."""
    assert plan.head is not None
    return f"{plan.prefix}{plan.head.name}"


def task_module(plan: Plan) -> str:
    """The name of the task's file, without `.py`."""
    assert plan.head is not None
    return f"{plan.package}_{snake(plan.head.name)}"


def write_task(plan: Plan, heads: Mapping[str, ClassHead]) -> str:
    """The unformatted text of the task's file."""
    assert plan.head is not None
    base, fields = backbone_plan(plan), ordered(task_fields(plan))
    analysis = Analysis(replace(plan, program=task_program(plan)))
    graph = analysis.plan.program.main
    scope = Scope(analysis, graph, owner="", lent=base.by_source)
    owned, lent = task_members(analysis, base)
    used = {**owned, **lent}
    layers = Construction(analysis, graph, scope, heads, builds=False, dtype="backbone.dtype_policy").lines(owned)
    body = _functional(analysis, Render(analysis, graph, scope, used, training=False))
    generates = plan.head.task in ("CausalLM", "Seq2SeqLM")
    settings = tuple(Field("", name, None, doc) for name, doc in ARGUMENTS.items()) if generates else ()
    init = ["# === Layers ===", "self.backbone = backbone", "self.preprocessor = preprocessor", *layers, ""]
    # The constructor of KerasHub's class compiles, which asks for them.
    init += [*(f"self.{f.name} = {f.name}" for f in settings), ""] if settings else []
    init += ["# === Functional Model ===", *body]
    init += ["", "# === Config ===", *(f"self.{f.name} = {f.name}" for f in fields)] if fields else []
    arguments = ["backbone", *_arguments(fields), *(f"{f.name}={DEFAULTS[f.name]}" for f in settings), "**kwargs"]
    packs = bool(plan.preprocessor)
    lines = [*docstring(_docs(plan, (*fields, *settings))), "", f"backbone_cls = {plan.prefix}Backbone"]
    lines += [f"preprocessor_cls = {preprocessor_class(plan)}", ""] if packs else [""]
    lines += [signature("__init__", arguments), *indent(init)]
    methods = generation(plan, base, owned) if generates else ()
    lines += [line for method in methods for line in ("", *method)]
    lines += ["", *get_config((*fields, *settings), _parent(plan))] if fields or settings or _skips(plan) else []
    bases = dict.fromkeys((plan.head.task, "Task")) if _skips(plan) else (plan.head.task,)
    imports = [*class_imports(analysis, graph, heads), *(f"from keras_hub.models import {base}" for base in bases)]
    imports += [f"from {plan.package}.{plan.package}_backbone import {plan.prefix}Backbone"]
    if packs:
        imports += [f"from {plan.package}.{preprocessor_module(plan)} import {preprocessor_class(plan)}"]
    head = [register(plan.package), f"class {task_class(plan)}({plan.head.task}):"]
    return "\n".join([*imports, "", "", *head, *indent(lines)]) + "\n"


def _skips(plan: Plan) -> bool:
    """Whether KerasHub's class makes a head of its own, which the package's does not want."""
    return plan.head is not None and plan.head.task == IMAGE_CLASSIFIER


def _parent(plan: Plan) -> str:
    """Whose methods are called for what every task has, a class or what finds it."""
    return "Task" if _skips(plan) else "super()"


def _arguments(fields: tuple[Field, ...]) -> list[str]:
    """Required arguments, then `preprocessor` as in KerasHub, then those with defaults."""
    texts = init_arguments(fields)
    required = [text for text in texts if "=" not in text]
    return [*required, "preprocessor=None", *(text for text in texts if "=" in text)]


def task_members(analysis: Analysis, base: Plan) -> tuple[Mapping[str, Member], Mapping[str, Member]]:
    """The layers that the task makes, and those of the backbone that it calls once more."""
    graph = analysis.plan.program.main
    below = members(Analysis(base), base.program.main)
    by_name = {str(member.node.attrs.get("name")): member for member in below.values()}
    found = members(analysis, graph, _RESERVED)
    lent = {n: by_name[name] for n in found if (name := str(graph[n].attrs.get("name"))) in by_name}
    owned = {name: member for name, member in found.items() if name not in lent}
    return owned, {name: replace(member, owner="backbone") for name, member in lent.items()}


def _functional(analysis: Analysis, render: Render) -> list[str]:
    plan, graph = analysis.plan, analysis.plan.program.main
    assert plan.head is not None
    lines, handed = _handed_over(plan.head.outputs)
    given = {n.name: f'inputs["{plan.inputs[n.name][0]}"]' for n in graph.inputs if n.name in plan.inputs}
    taken = {field.name for field in plan.fields} | _LOCALS
    body = Body(analysis, graph, render, {**given, **handed}, taken=taken, outputs=plan.outputs)
    lines += body.lines()
    returned = body.returned()
    named = [fitted(f'"{name}": ', value, 16) + "," for name, value in zip(plan.outputs, returned, strict=True)]
    outputs = [f"outputs={returned[0]},"] if len(returned) == 1 else ["outputs={", *indent(named), "},"]
    call = ["# Skip the parent class functional model.", "Task.__init__(", "    self,"] if _skips(plan) else []
    call = call or ["super().__init__("]
    return [*lines, *call, "    inputs=inputs,", *indent(outputs), "    **kwargs,", ")"]


def _handed_over(outputs: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The call of the backbone, and what the values it returns are called."""
    # The whole structure, and not the flattened list of `backbone.inputs`.
    lines = ["inputs = backbone.input"]
    if len(outputs) == 1:
        return [*lines, "x = backbone(inputs)"], dict.fromkeys(outputs.values(), "x")
    return [*lines, "features = backbone(inputs)"], {value: f'features["{name}"]' for name, value in outputs.items()}


def _docs(plan: Plan, fields: tuple[Field, ...]) -> list[str]:
    assert plan.head is not None
    what = _WHAT.get(plan.head.task, "{} core network with the head of " + f"`{plan.provenance.get(_CLASS, '')}`.")
    lines = paragraph(what.format(plan.prefix)) + [""]
    lines += ["Args:", *entry("backbone", f"A `{plan.prefix}Backbone` instance.")]
    lines += entry(
        "preprocessor",
        "A `keras_hub.models.Preprocessor` or `None`. If `None`, this model will not apply preprocessing, and inputs "
        "should be preprocessed before calling the model.",
    )
    return lines + argument_docs(fields)


_CLASS = "transformers class"
