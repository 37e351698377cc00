"""A traced graph without operations that write into their argument."""

import functools
import operator
from collections.abc import Mapping, Sequence

import torch
from torch import library
from torch.fx import Graph, Node

# They mark, and change no value.
_MARKS = {"aten.detach_.default"}
# Of the operations that are made of others, those that always give a new tensor; a dropout may give its argument.
_NEW = {"aten.linear.default", "aten.matmul.default", "aten.einsum.default", "aten.batch_norm.default",
        "aten.layer_norm.default", "aten.softmax.int", "aten.conv1d.default", "aten.conv2d.default",
        "aten.conv3d.default"}  # fmt: skip

# What takes entries of a tensor, and what puts them back.
_SCATTERED = {
    torch.ops.aten.select.int: torch.ops.aten.select_scatter.default,
    torch.ops.aten.slice.Tensor: torch.ops.aten.slice_scatter.default,
}
# torch decomposes a dropout to nothing where it is not training; an op that it does not know stays.
_OPS = library.Library("hf2khc", "DEF")
_OPS.define("dropout(Tensor input, float p, bool train) -> Tensor")
_OPS.impl("dropout", lambda x, p, train: torch.empty_like(x), "CompositeExplicitAutograd")


def without_writes(exported: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The same program with no op that mutates an argument; dropout stays.

    torch traces the whole program again for that, which takes as long as the export: it is asked only where something
    is written that another name may stand for, or where functions are mapped over an axis (`torch.vmap`).
    """
    _compute_anew(exported.graph)
    if not any(_writes(node) or _maps(node) for node in exported.graph.nodes):
        return exported
    _replace(exported.graph, torch.ops.aten.dropout.default, torch.ops.hf2khc.dropout.default)
    functional = exported.run_decompositions({})
    _replace(functional.graph, torch.ops.hf2khc.dropout.default, torch.ops.aten.dropout.default)
    return functional


def _replace(graph: Graph, old: torch._ops.OpOverload, new: torch._ops.OpOverload) -> None:
    for node in graph.nodes:
        if node.op == "call_function" and node.target is old:
            node.target = new


def _writes(node: Node) -> bool:
    return (
        isinstance(node.target, torch._ops.OpOverload)
        and node.target._schema.is_mutable
        and (str(node.target) not in _MARKS)
    )


def _maps(node: Node) -> bool:
    return str(getattr(node.target, "__module__", "")).startswith("torch._functorch")


def _compute_anew(graph: Graph) -> None:
    """Let what is written into a tensor of one name be a new tensor, which all that come behind it read, in place."""
    order = {node: place for place, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        anew = _anew(node.target) if _writes(node) else None
        written = node.args[0] if anew else None
        if not isinstance(written, Node) or not _keeps_its_type(node):
            continue
        views = _views(written)
        whole = views[-1].args[0] if views else written
        shared = _read_later(whole, node, order) if _is_new(whole) else None
        if shared is not None and (not views or _is_only_put_back(node)):
            node.target = anew
            result = _put_back(graph, node, views, order)
            _replace_behind(whole, result, node, order)
            _view_again(graph, shared, {whole: result}, node, order)


def _views(written: Node) -> list[Node]:
    """The entries and slices through which a write goes, the last one first."""
    found = []
    while written.target in _SCATTERED and isinstance(written.args[0], Node):
        found.append(written)
        written = written.args[0]
    return found


def _read_later(whole: Node, write: Node, order: Mapping[Node, int]) -> list[Node] | None:
    """The views of a tensor made before a write that are read behind it, and those in between.

    Returns:
        In the order in which they were made; None where something is read that may be a copy.
    """
    seen: set[Node] = set()
    waiting = [user for user in whole.users if order[user] < order[write]]
    while waiting:
        shared = waiting.pop()
        if shared not in seen and not _is_new(shared):
            seen.add(shared)
            waiting += [user for user in shared.users if order[user] < order[write]]
    read: set[Node] = set()
    for shared in sorted(seen, key=order.__getitem__, reverse=True):
        if any(order[user] > order[write] or user in read for user in shared.users):
            read.add(shared)
    return sorted(read, key=order.__getitem__) if all(map(_is_view, read)) else None


def _is_view(node: Node) -> bool:
    """Whether a node gives its first argument in other order, or some of it, and never a copy."""
    schema = node.target._schema if isinstance(node.target, torch._ops.OpOverload) else None
    if schema is None or schema.is_mutable or len(schema.returns) != 1:
        return False
    shares = schema.returns[0].alias_info is not None and schema.arguments[0].alias_info is not None
    return shares and not _is_made_of_others(node.target)


def _replace_behind(old: Node, new: Node, write: Node, order: Mapping[Node, int]) -> None:
    old.replace_all_uses_with(new, delete_user_cb=lambda user: order[user] > order[write])


def _view_again(
    graph: Graph, views: Sequence[Node], anew: dict[Node, Node], write: Node, order: dict[Node, int]
) -> None:
    """Let what is read behind a write be views of the new tensor.

    Args:
        graph: of the nodes.
        views: in the order in which they were made.
        anew: the new tensor, by the one that was written into.
        write: the operation, order[write] its place.
        order: the places of the nodes.
    """
    last = next(iter(anew.values()))
    for view in views:
        source, *rest = view.args
        assert isinstance(source, Node)
        with graph.inserting_after(last):
            last = anew[view] = graph.call_function(view.target, (anew[source], *rest), dict(view.kwargs))
        last.meta = dict(view.meta)
        order[last] = order[write]
        _replace_behind(view, last, write, order)


def _is_only_put_back(write: Node) -> bool:
    """Whether nobody reads what a write through a view gives, but for Python, which assigns it to that view again."""
    return all(user.target is torch.ops.aten.copy_.default and user.args[1] is write for user in write.users)


def _put_back(graph: Graph, write: Node, views: Sequence[Node], order: dict[Node, int]) -> Node:
    """The whole tensor, with what a write computes in place of the entries that it wrote into."""
    result = write
    for view in views:
        source, *place = view.args
        assert isinstance(source, Node)
        with graph.inserting_after(result):
            made = graph.call_function(_SCATTERED[view.target], (source, result, *place))
        made.meta = {**view.meta, "val": source.meta["val"]}
        order[made] = order[write]
        result = made
    return result


def _anew(target: torch._ops.OpOverload) -> torch._ops.OpOverload | None:
    """The op that gives what `target` writes into its first argument; `None` if there is none."""
    namespace, name = target._schema.name.split("::")
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    found = getattr(packet, target._overloadname, None) if name.endswith("_") else None
    if found is None or found._schema.is_mutable:
        return None
    same = [argument.name for argument in found._schema.arguments] == [a.name for a in target._schema.arguments]
    return found if same else None


def _is_new(node: Node) -> bool:
    """Whether what a node gives shares no memory with anything else."""
    if node.target is operator.getitem and isinstance(node.args[0], Node):
        node = node.args[0]
        if len({user.args[1] for user in node.users}) < len(node.users):
            return False
    op = node.target
    if not isinstance(op, torch._ops.OpOverload) or op._schema.is_mutable:
        return False
    if any(result.alias_info is not None for result in op._schema.returns):
        return False
    return not _is_made_of_others(op) or str(op) in _NEW


def _is_made_of_others(op: torch._ops.OpOverload) -> bool:
    """Whether an operation is only a name for others: a reshape is a view, or a copy."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "CompositeImplicitAutograd")


def _keeps_its_type(node: Node) -> bool:
    """Whether the new tensor has the dtype of the one that is written: no other argument has a wider one."""
    dtypes = [argument.meta["val"].dtype for argument in node.all_input_nodes if hasattr(argument.meta["val"], "dtype")]
    return functools.reduce(torch.promote_types, dtypes) == node.meta["val"].dtype
