"""A traced graph without operations that write into their argument."""

import functools
import operator

import torch
from torch import library
from torch.fx import Graph, Node

# They mark, and change no value.
_MARKS = {"aten.detach_.default"}
# Of the operations that are made of others, those that always give a new tensor; a dropout may give its argument.
_NEW = {"aten.linear.default", "aten.matmul.default", "aten.einsum.default", "aten.batch_norm.default",
        "aten.layer_norm.default", "aten.softmax.int", "aten.conv1d.default", "aten.conv2d.default",
        "aten.conv3d.default"}  # fmt: skip

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
        if not isinstance(written, Node) or not _is_new(written) or not _keeps_its_type(node):
            continue
        if all(order[user] >= order[node] or _is_new(user) for user in written.users):
            node.target = anew
            written.replace_all_uses_with(node, delete_user_cb=lambda user, node=node: order[user] > order[node])


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
    made_of_others = torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "CompositeImplicitAutograd")
    return not made_of_others or str(op) in _NEW


def _keeps_its_type(node: Node) -> bool:
    """Whether the new tensor has the dtype of the one that is written: no other argument has a wider one."""
    dtypes = [argument.meta["val"].dtype for argument in node.all_input_nodes if hasattr(argument.meta["val"], "dtype")]
    return functools.reduce(torch.promote_types, dtypes) == node.meta["val"].dtype
