"""The `compute_output_shape` method of a layer."""

from hf2khc.ir.expr import Expr, names_of
from hf2khc.ir.graph import Graph
from hf2khc.ir.types import Tensor, same_type
from hf2khc.write.construction import shape_argument
from hf2khc.write.scope import Scope
from hf2khc.write.source_text import indent, signature


def output_shape(graph: Graph, scope: Scope) -> list[str]:
    """The method for a layer with one floating result, else nothing: Keras then infers the shapes itself.

    Keras infers by running `call` on sizes of its own choice, which may be longer than a table of positions.
    """
    type_ = graph[graph.outputs[0]].type
    if len(graph.outputs) != 1 or not isinstance(type_, Tensor) or not type_.is_floating or not graph.inputs:
        return []
    first, name = graph.inputs[0].tensor, shape_argument(graph)
    if same_type(first, type_):
        text = name
    else:
        dims = [_dimension(dim, first, name, scope) for dim in type_.shape]
        text = f"({dims[0]},)" if len(dims) == 1 else f"({', '.join(dims)})"
    return [signature("compute_output_shape", [name]), *indent([f"return {text}"])]


def _dimension(dim: int | Expr, first: Tensor, name: str, scope: Scope) -> str:
    """A dimension of the result: one of the first input's, one the constructor knows, or unknown."""
    if not any(map(scope.is_size, names_of(dim))):
        return scope.static(dim)
    for axis, given in enumerate(first.shape):
        if isinstance(given, Expr) and isinstance(dim, Expr) and given.text == dim.text:
            return f"{name}[{axis}]"
    return "None"
