"""Rows of a matrix that are computed one after another from those above are the solution of a linear system."""

from dataclasses import replace

from hf2khc.ir.graph import Graph, Node, Program
from hf2khc.passes.core.lowering import axis_of, flag


def solve_substitution(program: Program) -> Program:
    """Solve a triangular system in place of a loop over the rows of its matrix.

    A strictly lower triangular `x` of which every row has the rows above it added, each times its own entry, becomes
    `y` with `y = x + x y`, so `y + 1` is the inverse of `1 - x` (Yang et al. 2024, https://arxiv.org/abs/2406.06484,
    section 3.2). Linear attentions with a delta rule unroll that loop over the positions of a chunk; what they multiply
    by the inverse then solves the system itself.

    Before:

        graph Chunk(%s: f32[batch, 2, 2], %v: f32[batch, 2, 8]) {
          %x: f32[batch, 2, 2] = aten.tril(%s, diagonal=-1)
          %rows: f32[batch, 2] = aten.select(%x, dim=1, index=1)
          %row: f32[batch, 1] = aten.slice(%rows, dim=1, start=0, end=1)
          %upper: f32[batch, 1, 2] = aten.slice(%x, dim=1, start=0, end=1)
          %above: f32[batch, 1, 1] = aten.slice(%upper, dim=2, start=0, end=1)
          %row_1: f32[batch, 1, 1] = aten.unsqueeze(%row, dim=-1)
          %products: f32[batch, 1, 1] = aten.mul(%row_1, %above)
          %sum: f32[batch, 1] = aten.sum(%products, dim=(-2,))
          %new: f32[batch, 1] = aten.add(%row, %sum)
          %whole: f32[batch, 2] = aten.slice_scatter(%rows, %new, dim=1, start=0, end=1)
          %y: f32[batch, 2, 2] = aten.select_scatter(%x, %whole, dim=1, index=1)
          %one: f32[2, 2] = aten.eye(n=2, dtype="float32")
          %inverse: f32[batch, 2, 2] = aten.add(%y, %one)
          %z: f32[batch, 2, 8] = aten.matmul(%inverse, %v)
          return %z
        }

        entry Chunk

    After:

        graph Chunk(%s: f32[batch, 2, 2], %v: f32[batch, 2, 8]) {
          %x: f32[batch, 2, 2] = aten.tril(%s, diagonal=-1)
          %one: f32[2, 2] = aten.eye(n=2, dtype="float32")
          %y_system: f32[batch, 2, 2] = aten.sub(%one, %x)
          %z: f32[batch, 2, 8] = aten.linalg_solve_triangular(%y_system, %v, upper=false)
          return %z
        }

        entry Chunk
    """
    return program.map(_solved)


def _solved(graph: Graph) -> Graph:
    new: list[Node] = []
    for last in graph.of("aten.select_scatter"):
        matrix, inverses = _source(graph, last), _inverses(graph, last)
        if matrix is None or not inverses or not _is_strictly_lower(graph, matrix):
            continue
        one = next(o for o in inverses[0].used if o != last.name)
        system = graph.fresh(f"{last.name}_system", taken=[node.name for node in new])
        new.append(Node(system, "aten.sub", (one, matrix), {}, last.type, last.loc, last.origin))
        for product in (user for inverse in inverses for user in graph.users(inverse.name)):
            operands = (system, product.used[1])
            new.append(replace(product, op="aten.linalg_solve_triangular", operands=operands, attrs={"upper": False}))
    return graph.rewired(new) if new else graph


def _inverses(graph: Graph, last: Node) -> list[Node]:
    """The sums of the last matrix with the identity, where it is nothing but factors on the left."""
    sums = list(graph.users(last.name))
    if last.name in graph.outputs or not all(_adds_identity(graph, node) for node in sums):
        return []
    products = [(node, user) for node in sums for user in graph.users(node.name)]
    solves = all(_multiplies(graph, node, user) for node, user in products)
    return sums if products and solves and not {node.name for node in sums} & set(graph.outputs) else []


def _adds_identity(graph: Graph, node: Node) -> bool:
    plain = node.op == "aten.add" and len(node.used) == 2 and node.attrs.get("alpha", 1) == 1
    return plain and any(graph[o].op == "aten.eye" and _is_square(graph[o]) for o in node.used)


def _multiplies(graph: Graph, inverse: Node, user: Node) -> bool:
    if user.op not in ("aten.matmul", "aten.bmm", "aten.mm") or user.used[0] != inverse.name:
        return False
    first, second = inverse.tensor, graph[user.used[1]].tensor
    return user.used[1] != inverse.name and first.shape[:-2] == second.shape[:-2]


def _is_square(node: Node) -> bool:
    shape = node.tensor.shape
    return len(shape) > 1 and shape[-1] == shape[-2]


def _is_strictly_lower(graph: Graph, name: str) -> bool:
    """Whether nothing but zeros stands on and above the diagonal."""
    node = graph[name]
    if node.op == "aten.neg":
        return _is_strictly_lower(graph, node.used[0])
    if node.op == "aten.masked_fill" and node.attrs.get("value") == 0 and len(node.used) == 2:
        mask = graph[node.used[1]]
        return _is_cut(mask, "aten.triu", 0) and graph[mask.used[0]].op == "aten.ones" and _is_square(mask)
    return _is_cut(node, "aten.tril", -1)


def _is_cut(node: Node, op: str, highest: int) -> bool:
    """Whether a triangle is cut out at this diagonal or a lower one."""
    diagonal = flag(node, "diagonal", 0)
    return node.op == op and isinstance(diagonal, int) and diagonal <= highest


# The loop, backwards


def _source(graph: Graph, last: Node) -> str | None:
    """The matrix whose rows a chain of updates up to this one computes from each other; None if that is no such one."""
    if not _is_square(last) or not isinstance(last.tensor.shape[-1], int):
        return None
    name = last.name
    for index in range(last.tensor.shape[-1] - 1, 0, -1):
        before = _row_computed(graph, graph[name], index)
        if before is None:
            return None
        name = before
    return name


def _row_computed(graph: Graph, node: Node, index: int) -> str | None:
    """The matrix before one of its rows was computed; None if that is another operation."""
    rank = node.tensor.rank
    if node.op != "aten.select_scatter" or not _at(node, rank - 2, index=index):
        return None
    matrix, row = node.used
    put = graph[row]
    if put.op != "aten.slice_scatter" or not _at(put, rank - 2, start=0, end=index):
        return None
    if not _is_row(graph, put.used[0], matrix, index):
        return None
    new = graph[put.used[1]]
    new = graph[new.used[1]] if new.op == "aten.copy" else new
    return matrix if _adds_those_above(graph, new, matrix, index) else None


def _adds_those_above(graph: Graph, node: Node, matrix: str, index: int) -> bool:
    if node.op != "aten.add" or len(node.used) != 2 or node.attrs.get("alpha", 1) != 1:
        return False
    return any(
        _is_cut_row(graph, row, matrix, index) and _is_product(graph, graph[added], matrix, index)
        for row, added in (node.used, node.used[::-1])
    )


def _is_product(graph: Graph, node: Node, matrix: str, index: int) -> bool:
    """The sum over the rows above, each times its entry in this row."""
    if node.op != "aten.sum" or node.attrs.get("dim") not in ((-2,), (node.tensor.rank - 1,)):
        return False
    product = graph[node.used[0]]
    if product.op != "aten.mul" or len(product.used) != 2 or node.attrs.get("keepdim"):
        return False
    return any(
        _is_column(graph, graph[row], matrix, index) and _is_above(graph, graph[above], matrix, index)
        for row, above in (product.used, product.used[::-1])
    )


def _is_column(graph: Graph, node: Node, matrix: str, index: int) -> bool:
    stands = node.op == "aten.unsqueeze" and axis_of(node, node.tensor.rank) == node.tensor.rank - 1
    return stands and _is_cut_row(graph, node.used[0], matrix, index)


def _is_above(graph: Graph, node: Node, matrix: str, index: int) -> bool:
    """Whether a value is the matrix cut before an index along both of its axes."""
    if node.op != "aten.slice" or graph[node.used[0]].op != "aten.slice":
        return False
    cuts, rank = (node, graph[node.used[0]]), node.tensor.rank
    both = {axis_of(cut, rank) for cut in cuts} == {rank - 1, rank - 2}
    return both and cuts[1].used == (matrix,) and all(_at(cut, axis_of(cut, rank), start=0, end=index) for cut in cuts)


def _is_cut_row(graph: Graph, name: str, matrix: str, index: int) -> bool:
    node = graph[name]
    cut = node.op == "aten.slice" and _at(node, node.tensor.rank - 1, start=0, end=index)
    return cut and _is_row(graph, node.used[0], matrix, index)


def _is_row(graph: Graph, name: str, matrix: str, index: int) -> bool:
    node = graph[name]
    return node.op == "aten.select" and node.used == (matrix,) and _at(node, node.tensor.rank - 1, index=index)


def _at(node: Node, axis: int, **numbers: int) -> bool:
    """Whether an operation acts at these places of an axis."""
    rank = node.tensor.rank + (node.op == "aten.select")
    given = axis_of(node, rank) == axis % rank and flag(node, "step", 1) == 1
    return given and all(flag(node, key, 0) == number for key, number in numbers.items())
