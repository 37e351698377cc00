"""The closed list of pure functions that guards and attributes of rules may call."""

from collections.abc import Callable, Mapping

from hf2khc.ir.expr import Expr, same, simplify
from hf2khc.ir.graph import LEAVES, Graph
from hf2khc.ir.types import Tensor, tensors

# Each takes the graph and its arguments: names of values for variables that stand for values, else attribute values.
FUNCTIONS: dict[str, Callable] = {}


def _listed(function: Callable) -> Callable:
    FUNCTIONS[function.__name__] = function
    return function


@_listed
def rank(graph: Graph, x: str) -> int:
    return graph[x].tensor.rank


@_listed
def dtype(graph: Graph, x: str) -> str:
    return tensors(graph[x].type)[0].dtype


@_listed
def shape(graph: Graph, x: str) -> tuple:
    return graph[x].tensor.shape


@_listed
def dim(graph: Graph, x: str, axis: int):
    """The size of an axis."""
    return graph[x].tensor.shape[axis]


@_listed
def last_dim(graph: Graph, x: str):
    return graph[x].tensor.shape[-1]


@_listed
def is_bool(graph: Graph, x: str) -> bool:
    return dtype(graph, x) == "bool"


@_listed
def is_integer(graph: Graph, x: str) -> bool:
    return "int" in dtype(graph, x)


@_listed
def is_floating(graph: Graph, x: str) -> bool:
    return "float" in dtype(graph, x)


@_listed
def is_constant(graph: Graph, x: str) -> bool:
    """Whether a value is a parameter or a constant."""
    return graph[x].op in LEAVES and graph[x].op != "input"


@_listed
def is_param(graph: Graph, x: str) -> bool:
    return graph[x].op == "param"


@_listed
def single_use(graph: Graph, x: str) -> bool:
    return graph.uses(x) == 1


@_listed
def is_masked(graph: Graph, x: str) -> bool:
    """Whether a value is the lowest number at some of its places."""
    return graph[x].op == "ops.where" and is_lowest(graph, graph[x].attrs.get("x2"))


@_listed
def is_lowest(graph: Graph, x) -> bool:
    """Whether a number is so low that a score of it vanishes in a softmax."""
    return isinstance(x, float) and x < -1e30


@_listed
def is_present(graph: Graph, x) -> bool:
    """Whether an optional variable is bound."""
    return x is not None


@_listed
def is_number(graph: Graph, x) -> bool:
    return isinstance(x, int | float | Expr) and not isinstance(x, bool)


@_listed
def is_int(graph: Graph, x) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)


@_listed
def is_float(graph: Graph, x) -> bool:
    return isinstance(x, float)


@_listed
def same_shape(graph: Graph, a: str, b: str) -> bool:
    first, second = graph[a].type, graph[b].type
    if not isinstance(first, Tensor) or not isinstance(second, Tensor) or first.rank != second.rank:
        return False
    return all(map(same, first.shape, second.shape))


@_listed
def same_dtype(graph: Graph, a: str, b: str) -> bool:
    return dtype(graph, a) == dtype(graph, b)


@_listed
def swapped(graph: Graph, x: str, a: int, b: int) -> tuple:
    """The axes of a value with two of them swapped."""
    axes = list(range(rank(graph, x)))
    axes[a], axes[b] = axes[b], axes[a]
    return tuple(axes)


@_listed
def axes(graph: Graph, x: str, given: tuple) -> tuple:
    """Axes counted from the front."""
    return tuple(axis % rank(graph, x) for axis in given)


@_listed
def length(graph: Graph, values: tuple) -> int:
    return len(values)


@_listed
def subscripts(graph: Graph, equation: str) -> str:
    """The subscripts of an einsum as Keras takes them on every backend: small letters, the result's spelled out."""
    text = equation.replace(" ", "")
    before, arrow, after = text.partition("->")
    if not arrow:
        after = "".join(sorted(letter for letter in set(before) - {","} if before.count(letter) == 1))
    free = iter(letter for letter in "abcdefghijklmnopqrstuvwyz" if letter not in text)
    letters = {letter: next(free) if letter.isupper() else letter for letter in dict.fromkeys(before + after)}
    return "->".join("".join(letters[letter] for letter in part) for part in (before, after))


def _same(graph: Graph, a, b) -> bool:
    return same(a, b)


def _arithmetic(symbol: str, compute: Callable) -> Callable:
    def apply(graph: Graph, a, b):
        if isinstance(a, Expr) or isinstance(b, Expr):
            return simplify(f"({a}) {symbol} ({b})")
        return compute(a, b)

    return apply


def _negative(graph: Graph, a):
    return simplify(f"-({a})") if isinstance(a, Expr) else -a


FUNCTIONS["same"] = _same
ARITHMETIC: Mapping[str, Callable] = {
    "add": _arithmetic("+", lambda a, b: a + b),
    "subtract": _arithmetic("-", lambda a, b: a - b),
    "multiply": _arithmetic("*", lambda a, b: a * b),
    "divide": _arithmetic("/", lambda a, b: a / b),
    "floor_divide": _arithmetic("//", lambda a, b: a // b),
    "power": _arithmetic("**", lambda a, b: a**b),
    "negative": _negative,
}
