"""From a graph to the file of a Keras layer."""

from collections.abc import Container, Iterable, Mapping

from hf2khc.ir.graph import CALLS, Graph, Node, callees
from hf2khc.write.analysis import Analysis
from hf2khc.write.arguments import ordered
from hf2khc.write.body import Body
from hf2khc.write.cache import cache_arguments, returned_lines
from hf2khc.write.cache_method import cache_method
from hf2khc.write.construction import ClassHead, Construction, shape_argument
from hf2khc.write.cross_cache import CROSS, call_graph, keeps
from hf2khc.write.cross_method import build_method, with_graph
from hf2khc.write.layer_facts import hub_imports
from hf2khc.write.members import members
from hf2khc.write.names import input_names, snake, spoken, without_prefix
from hf2khc.write.output_shape import output_shape
from hf2khc.write.plan import Field
from hf2khc.write.render import Render
from hf2khc.write.scope import Scope
from hf2khc.write.source_text import (
    argument_docs,
    docstring,
    entry,
    get_config,
    indent,
    init_arguments,
    paragraph,
    signature,
)
from hf2khc.write.states import part_lines, parts


def write_layer(analysis: Analysis, graph: Graph, heads: Mapping[str, ClassHead]) -> tuple[ClassHead, str]:
    """The head of a graph's class and the unformatted text of its file."""
    scope = Scope(analysis, graph)
    owned = members(analysis, graph)
    build = Construction(analysis, graph, scope, heads, builds=True).lines(owned)
    called = call_graph(analysis.plan, graph)
    training = analysis.training(graph.name)
    reduced = with_graph(analysis, called)
    render = Render(reduced, called, scope, owned, training, policy="self.compute_dtype", decodes=True)
    call = _call(reduced, called, render, scope)
    empty = cache_method(analysis, graph, scope, owned)
    once = build_method(analysis, graph, scope, owned)
    shape = output_shape(graph, scope, _arguments(analysis, called, render))
    fields = ordered(_in_plan_order(analysis, scope))
    module = module_name(analysis.plan.package, analysis.plan.prefix, graph.name, analysis.plan.program.graphs)
    head = ClassHead(graph.name, module, fields)
    methods = [_init(fields), _build(graph, build), empty, once, call, shape, get_config(fields) if fields else []]
    body = docstring(_docs(analysis, graph, fields))
    for method in methods:
        body += ["", *method] if method else []
    lines = [*class_imports(analysis, graph, heads), "", ""]
    lines += [register(analysis.plan.package), f"class {graph.name}(keras.layers.Layer):", *indent(body)]
    return head, "\n".join(lines) + "\n"


def module_name(package: str, prefix: str, name: str, names: Container[str]) -> str:
    """`LlamaRMSNorm` of package `llama` as `llama_rms_norm`, or whole where that is for a class of `names`."""
    short = without_prefix(name, prefix)
    return f"{package}_{snake(name if short != name and short in names else short)}"


def register(package: str) -> str:
    return f'@keras.saving.register_keras_serializable(package="{package}")'


def class_imports(analysis: Analysis, graph: Graph, heads: Mapping[str, ClassHead]) -> list[str]:
    """All a class may need; ruff drops what it does not and puts them in order."""
    called = (callees(node) for node in analysis.printed(graph.name) if _calls(node))
    used = dict.fromkeys(name for names in called for name in names)
    package = analysis.plan.package
    own = [f"from {package}.{heads[name].module} import {heads[name].name}" for name in used]
    hub = hub_imports(node.op for node in analysis.printed(graph.name))
    return ["import math", "", "import keras", "from keras import ops", *hub, "", *own]


def _calls(node: Node) -> bool:
    return node.op in CALLS


def _in_plan_order(analysis: Analysis, scope: Scope) -> Iterable[Field]:
    order = {field.source: i for i, field in enumerate(analysis.plan.fields)}
    return (
        Field(source, f.name, f.value, f.doc) if f.source != source else f
        for source, f in sorted(
            scope.sources.items(), key=lambda item: (order.get(item[1].source, len(order)), item[0])
        )
    )


def _init(fields: tuple[Field, ...]) -> list[str]:
    if not fields:
        return []
    body = ["super().__init__(**kwargs)", *(f"self.{f.name} = {f.name}" for f in fields)]
    return [signature("__init__", [*init_arguments(fields), "**kwargs"]), *indent(body)]


def _build(graph: Graph, lines: list[str]) -> list[str]:
    return [signature("build", [shape_argument(graph)]), *indent([*lines, "self.built = True"])] if lines else []


def _call(analysis: Analysis, graph: Graph, render: Render, scope: Scope) -> list[str]:
    names = input_names(node.name for node in graph.inputs)
    indices = parts(analysis.plan, graph)
    render.caches = {name: f"{render.members[name].attribute}_cache" for name in indices}
    body = Body(analysis, graph, render, names, taken=scope.size_names())
    lines = [*part_lines(render.caches, indices), *body.lines()]
    returned = [render.result(name, text) for name, text in zip(graph.outputs, body.returned(), strict=True)]
    returns = returned_lines(analysis.plan, graph.name, returned, body.kept())
    return [signature("call", _arguments(analysis, graph, render)), *indent([*scope.size_lines(), *lines, *returns])]


def _arguments(analysis: Analysis, graph: Graph, render: Render) -> list[str]:
    names = input_names(node.name for node in graph.inputs)
    training = ["training=None"] if render.training else []
    kept = [f"{CROSS}=None"] if keeps(analysis.plan, graph.name) else []
    return [*names.values(), *cache_arguments(analysis.plan, graph.name), *kept, *training]


def _docs(analysis: Analysis, graph: Graph, fields: tuple[Field, ...]) -> list[str]:
    prefix = analysis.plan.prefix
    lines = paragraph(f"{spoken(without_prefix(graph.name, prefix))} of the {prefix} backbone.")
    if fields:
        lines += ["", "Args:", *argument_docs(fields)]
        lines += entry("**kwargs", "Additional keyword arguments passed to `keras.layers.Layer`.")
    return lines
