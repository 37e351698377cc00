"""What a layer says of its results before it computes them: `compute_output_shape` or `compute_output_spec`."""

from collections.abc import Mapping, Sequence

from hf2khc.ir.expr import Expr, names_of
from hf2khc.ir.graph import Graph
from hf2khc.ir.types import Differs, Tensor, same_type, tensors
from hf2khc.write.construction import shape_argument
from hf2khc.write.names import input_names
from hf2khc.write.scope import Scope
from hf2khc.write.source_text import indent, signature


def output_shape(graph: Graph, scope: Scope, arguments: Sequence[str]) -> list[str]:
    """The method, or nothing where Keras infers the shapes itself.

    Keras infers by running `call` on sizes of its own choice, which may be longer than a table of positions or shorter
    than a window of samples. A shape says all of one floating result; others need their dtypes as well.

    Args:
        arguments: those of `call`.
    """
    if not graph.inputs or any(isinstance(graph[output].type, tuple) for output in graph.outputs):
        return []
    types = [graph[output].tensor for output in graph.outputs]
    if _is_left_to_keras(graph, types, scope):
        return []
    if len(types) == 1 and types[0].is_floating:
        return _shape_method(graph, types[0], scope)
    if not _needs_fitting_sizes(graph):
        return []
    specs = [_spec(type_, graph, scope) for type_ in types]
    returned = specs[0] if len(specs) == 1 else f"({', '.join(specs)})"
    return [signature("compute_output_spec", arguments), *indent([f"return {returned}"])]


def _is_left_to_keras(graph: Graph, types: Sequence[Tensor], scope: Scope) -> bool:
    """Whether a size follows from those of the inputs, which Keras knows: no argument is there to say it.

    So does one that is another at another config, for which no law was found.
    """
    given = [node.tensor for node in graph.inputs]
    if any(isinstance(dim, Differs) for type_ in types for dim in type_.shape):
        return not (len(types) == 1 and same_type(given[0], types[0]))
    known = all(not any(map(scope.is_size, names_of(dim))) for type_ in given for dim in type_.shape[1:])
    sizes = {str(dim) for type_ in given for dim in type_.shape}
    return known and any(not scope.is_stated(dim) and str(dim) not in sizes for type_ in types for dim in type_.shape)


def _shape_method(graph: Graph, type_: Tensor, scope: Scope) -> list[str]:
    first, name = graph.inputs[0].tensor, shape_argument(graph)
    text = name if same_type(first, type_) else _dimensions(type_, {name: first}, scope)
    return [signature("compute_output_shape", [name]), *indent([f"return {text}"])]


def _needs_fitting_sizes(graph: Graph) -> bool:
    """Whether sizes are computed with, or a middle axis has a fixed one: another size than the model's may not do."""
    computed = any(
        isinstance(dim, Expr) and dim.text not in dim.names
        for node in graph
        for type_ in tensors(node.type)
        for dim in type_.shape
    )
    return computed or any(not isinstance(dim, Expr) for node in graph.inputs for dim in node.tensor.shape[1:-1])


def _spec(type_: Tensor, graph: Graph, scope: Scope) -> str:
    names = input_names(node.name for node in graph.inputs)
    given = {f"{names[node.name]}.shape": node.tensor for node in graph.inputs}
    dtype = "self.compute_dtype" if type_.is_floating else f'"{"int32" if type_.dtype == "int64" else type_.dtype}"'
    return f"keras.KerasTensor({_dimensions(type_, given, scope)}, dtype={dtype})"


def _dimensions(type_: Tensor, given: Mapping[str, Tensor], scope: Scope) -> str:
    dims = [_dimension(dim, given, scope) for dim in type_.shape]
    return f"({dims[0]},)" if len(dims) == 1 else f"({', '.join(dims)})"


def _dimension(dim: int | Expr, given: Mapping[str, Tensor], scope: Scope) -> str:
    """A dimension of a result: one of an input's, by how its shape is spelt, one the constructor knows, or unknown."""
    if not any(map(scope.is_size, names_of(dim))) and scope.is_stated(dim):
        return scope.static(dim)
    for text, tensor in given.items():
        for axis, size in enumerate(tensor.shape):
            if isinstance(size, Expr) and isinstance(dim, Expr) and size.text == dim.text:
                return f"{text}[{axis}]"
    return "None" if any(map(scope.is_size, names_of(dim))) else scope.static(dim)
