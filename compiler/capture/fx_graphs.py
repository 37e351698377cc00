"""An exported program made ready for the import: without aliases, checks and weights."""

import sys
from collections.abc import Callable, Iterator
from unittest import mock

import torch
from torch.export.graph_signature import OutputKind
from torch.utils import _pytree

# Identities in an inference trace: they alias their argument. Left in, an aliased residual leaks out of a norm as a
# second result once the module hierarchy is recovered.
_ALIASES = {"aten.alias.default", "aten.contiguous.default", "aten.detach.default", "aten.detach_.default",
            "aten.lift_fresh_copy.default", "aten.lift_fresh.default", "aten.clone.default"}  # fmt: skip
_CASTS = {"aten.to.dtype", "aten.to.device", "aten.to.dtype_layout", "aten.to.other", "aten._to_copy.default",
          "aten.type_as.default"}  # fmt: skip
_WRITES = (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION)
_CHECKS = {"aten._assert_tensor_metadata.default", "aten._assert_scalar.default", "aten._assert_async.msg",
           "aten.sym_constrain_range_for_size.default", "aten.sym_constrain_range.default"}  # fmt: skip


def added(graph: torch.fx.Graph, like: torch.fx.Node, target: Callable, *args: object) -> torch.fx.Node:
    """A new node where the graph inserts, with the meta of `like` but for what it computes, `meta["val"]`."""
    made = graph.call_function(target, args)
    values = [arg.meta["val"] if isinstance(arg, torch.fx.Node) else arg for arg in args]
    with like.meta["val"].fake_mode:
        made.meta = {**like.meta, "val": target(*values)}
    return made


def drop_aliases(graph: torch.fx.Graph) -> None:
    """Remove identities, casts to the same dtype, checks and dead code, in place."""
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        target = str(node.target)
        if target in _CHECKS:
            graph.erase_node(node)
        elif target in _ALIASES or (target in _CASTS and _same_dtype(node)):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    graph.eliminate_dead_code()


def _same_dtype(node: torch.fx.Node) -> bool:
    return node.args[0].meta["val"].dtype == node.meta["val"].dtype


def forget_weights(exported: torch.export.ExportedProgram) -> None:
    """Put shape-only tensors in place of the weights: recovering the hierarchy would copy each of them."""
    shapes: dict[int, torch.Tensor] = {}
    for name, tensor in exported.state_dict.items():
        if id(tensor) not in shapes:
            empty = torch.empty_like(tensor, device="meta")
            shapes[id(tensor)] = torch.nn.Parameter(empty, False) if isinstance(tensor, torch.nn.Parameter) else empty
        exported.state_dict[name] = shapes[id(tensor)]


def complete_users(graph: torch.fx.Graph) -> None:
    """Let every node know all that use it.

    torch.export forgets some where it takes blocks without gradients apart and together again, and then no dead node
    can be erased.
    """
    for node in graph.nodes:
        for used in node.all_input_nodes:
            used.users.setdefault(node)


def forget_state_writes(exported: torch.export.ExportedProgram) -> None:
    """Drop the results that would be written back to buffers and parameters.

    Within one call, readers have the new value already.
    """
    specs = exported.graph_signature.output_specs
    output = exported.graph.output_node()
    kept = [index for index, spec in enumerate(specs) if spec.kind not in _WRITES]
    output.args = (tuple(output.args[0][index] for index in kept),)
    specs[:] = [specs[index] for index in kept]
    exported.graph.eliminate_dead_code()


def unflatten(exported: torch.export.ExportedProgram) -> torch.export.UnflattenedModule:
    """torch's own recovery of the module hierarchy, a module of its own for every call.

    It would make one module of calls that have the same operations, whatever their shapes: a dropout before and after
    a projection of another width.
    """
    _attribute_lent_modules(exported.graph)
    implementation = sys.modules["torch.export.unflatten"]
    with mock.patch.object(implementation, "_deduplicate_modules", lambda partitions: {}):
        return torch.export.unflatten(exported)


def _attribute_lent_modules(graph: torch.fx.Graph) -> None:
    """Count the operations of a module that was handed to one it does not belong to as that one's own.

    torch recovers a module only within the one that holds it.
    """
    for node in graph.nodes:
        kept: dict = {}
        inside = ""
        stack = node.meta.get("nn_module_stack")
        for key, (path, kind) in (stack or {}).items():
            plain = path.partition("@")[0]
            if not inside or plain == inside or plain.startswith(f"{inside}."):
                kept[key], inside = (path, kind), plain
        if stack:
            node.meta["nn_module_stack"] = kept


def output_paths(exported: torch.export.ExportedProgram) -> Iterator[str]:
    """The name of each result: keys and places, joined by dots."""
    spec = exported.call_spec.out_spec
    leaves = _pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    keyed, _ = _pytree.tree_flatten_with_path(leaves)
    return (".".join(_key(part) for part in path) or "output" for path, _ in keyed)


def _key(part) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(part, attribute):
            return str(getattr(part, attribute))
    return str(part)
