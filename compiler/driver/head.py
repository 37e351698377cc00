"""Where the base model ends and its head begins, and which task that makes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hf2khc.ir.analysis import weight_values
from hf2khc.ir.expr import Expr, same
from hf2khc.ir.graph import LEAVES, Graph, Node, Program, numbered
from hf2khc.ir.types import Tensor, tensors
from hf2khc.write.names import clean
from hf2khc.write.plan import Head

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOGITS = "logits"
CAUSAL_LM = "CausalLM"
_EMBEDDINGS = ("layers.Embedding", "layers.ReversibleEmbedding")


def find_head(model_class: "type[PreTrainedModel]", traced: Program, program: Program, causal: bool) -> Head | None:
    """The head of a model that is one over a base model, found in the calls of the trace.

    What the base model's modules compute, and what only they need, is the backbone; all else is the head.

    Args:
        model_class: names the module that is the base model, as every class of transformers does.
        traced: the import, in which the base model is one call of the entry.
        program: at the keras level, where it is no longer.
        causal: whether no output depends on later positions of the input.

    Returns:
        None where the model has no head, or where the two are not apart: the base model needs something of the head.
    """
    base = model_class.base_model_prefix
    if not base or not any(node.attrs["path"] == base for node in traced.main.of("call")):
        return None
    graph = program.main
    fixed = weight_values(graph) | {node.name for node in graph if node.op in LEAVES}
    sides = {node.name: _is_inside(node, base) for node in graph if node.name not in fixed}
    backbone = graph.behind(name for name, inside in sides.items() if inside) - fixed
    if any(sides[name] is False for name in backbone) or len(backbone) == len(sides):
        return None
    handed = _handed_over(graph, backbone)
    if not handed or any(isinstance(graph[name].type, tuple) for name in handed):
        return None
    task, name = _task(program, backbone, model_class.__name__, causal)
    return Head(task, name, frozenset(backbone), _named(graph, handed))


def _is_inside(node: Node, base: str) -> bool | None:
    """Whether a node belongs to a module of the base model; None where nothing tells."""
    path = str(node.attrs.get("path", "")) or (node.loc.path if node.loc else None)
    return None if path is None else path == base or path.startswith(f"{base}.")


def _handed_over(graph: Graph, backbone: set[str]) -> list[str]:
    """Values of the backbone that the head or the caller reads; masks, which cost nothing, are made twice."""
    heads = [node for node in graph if node.name not in backbone]
    read = ({o for node in heads for o in node.used} | set(graph.outputs)) & backbone
    return [
        node.name for node in graph if node.name in read and (isinstance(node.type, tuple) or not _is_mask(graph, node))
    ]


def _is_mask(graph: Graph, node: Node) -> bool:
    behind = (graph[name] for name in graph.behind({node.name}))
    is_floating = any(type_.is_floating for type_ in tensors(node.type))
    return not is_floating and all(n.level == "ops" or n.op in ("input", "const") for n in behind)


def _named(graph: Graph, values: list[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for value in values:
        rank = graph[value].tensor.rank
        wish = {3: "sequence_output", 2: "pooled_output"}.get(rank, clean(value))
        found[numbered(wish, found)] = value
    return found


def _task(program: Program, backbone: set[str], model_class: str, causal: bool) -> tuple[str, str]:
    """The class of KerasHub that does what the head does, and what the package calls its own."""
    graph = program.main
    if program.outputs == (LOGITS,):
        logits = graph[graph.outputs[0]].tensor
        tokens = [node for node in graph if node.op in _EMBEDDINGS and _embeds_tokens(graph, node)]
        streams = {str(graph[node.operands[0] or ""].tensor.shape[1]) for node in tokens}
        if len(streams) == 1 and any(_scores_tokens(graph, node, logits) for node in tokens):
            return (CAUSAL_LM, CAUSAL_LM) if causal else ("MaskedLM", "MaskedLM")
        if len(streams) == 1 and logits.rank == 2 and isinstance(logits.shape[0], Expr):
            return "TextClassifier", "TextClassifier"
    return "Task", model_class.partition("For")[2] or f"{model_class}Task"


def _embeds_tokens(graph: Graph, node: Node) -> bool:
    return graph[node.operands[0] or ""].op == "input" and not node.attrs.get("reverse")


def _scores_tokens(graph: Graph, embedding: Node, logits: Tensor) -> bool:
    """Whether there is a number for every entry of the vocabulary at every position."""
    tokens = graph[embedding.operands[0] or ""].tensor
    vocabulary = embedding.attrs["input_dim"]
    return logits.rank == 3 and logits.shape[:2] == tokens.shape and same(logits.shape[2], vocabulary)
