"""Where the base model ends and its head begins, and which task that makes."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from hf2khc.ir.analysis import weight_values
from hf2khc.ir.expr import Expr, names_of, same
from hf2khc.ir.graph import LEAVES, Graph, Node, Program, numbered
from hf2khc.ir.types import Tensor, tensors
from hf2khc.passes.keras.vocabulary import DECODER_TOKENS, ENCODER_OUTPUT_NAMES, INPUT_NAMES, OUTPUT_NAMES
from hf2khc.write.names import clean
from hf2khc.write.plan import IMAGE_CLASSIFIER, Head

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOGITS = "logits"
CAUSAL_LM, SEQ_2_SEQ_LM = "CausalLM", "Seq2SeqLM"
_IMAGES = INPUT_NAMES["pixel_values"]
_EMBEDDINGS = ("layers.Embedding", "layers.ReversibleEmbedding")


def find_head(
    model_class: "type[PreTrainedModel]",
    traced: Program,
    program: Program,
    causal: bool,
    stacks: Collection[str] = (),
) -> Head | None:
    """The head of a model that is one over a base model, found in the calls of the trace.

    What the base model's modules compute, with all it needs, is the backbone; the rest is the head.

    Args:
        model_class: names the module that is the base model, as every class of transformers does.
        traced: the import, in which the base model is one call of the entry.
        program: at the keras level, where it is no longer.
        causal: whether no output depends on later positions of the input.
        stacks: paths of the lists of layers, which tell a base model where the class names none.

    Returns:
        None where the model has no head.
    """
    graph, bases = program.main, _bases(model_class, traced, stacks)
    if not bases:
        return None
    fixed = weight_values(graph) | {node.name for node in graph if node.op in LEAVES}
    computed = [node for node in graph if node.name not in fixed]
    backbone = graph.behind(node.name for node in computed if _is_inside(node, bases)) - fixed
    if len(backbone) == len(computed):
        return None
    handed = _handed_over(program, backbone)
    if not handed or any(isinstance(graph[name].type, tuple) for name in handed):
        return None
    task, name = _task(program, model_class.__name__, causal)
    return Head(task, name, frozenset(backbone), _named(program, handed))


def _bases(model_class: "type[PreTrainedModel]", traced: Program, stacks: Collection[str]) -> list[str]:
    """The modules that are the base model: the one the class names, or those with layers below what gives logits."""
    calls = [str(node.attrs["path"]) for node in traced.main.of("call")]
    base = model_class.base_model_prefix
    # A module that only hands on to one of its own may have left no call.
    if base and any(f"{path}.".startswith(f"{base}.") for path in calls):
        return [base]
    if LOGITS not in traced.outputs:
        return []
    return [path for path in dict.fromkeys(calls) if any(stack.startswith(f"{path}.") for stack in stacks)]


def _is_inside(node: Node, bases: Iterable[str]) -> bool:
    """Whether a node belongs to a module of the base model."""
    path = str(node.attrs.get("path", "")) or (node.loc.path if node.loc else "")
    return any(path == base or path.startswith(f"{base}.") for base in bases)


def _handed_over(program: Program, backbone: set[str]) -> list[str]:
    """Values of the backbone that the head or the caller reads; masks and weights cost nothing and are made twice."""
    graph = program.main
    heads = [node for node in graph if node.name not in backbone]
    read = ({o for node in heads for o in node.used} | set(graph.outputs)) & backbone
    again = {node.name for node in graph if _is_weight(program, node) or _is_mask(graph, node)}
    return [node.name for node in graph if node.name in read - again]


def _is_weight(program: Program, node: Node) -> bool:
    """Whether a node calls what gives nothing but a weight of its own."""
    if node.op != "call":
        return False
    callee = program.graphs[str(node.attrs["graph"])]
    return all(callee[name].op != "input" for name in callee.behind(callee.outputs))


def _is_mask(graph: Graph, node: Node) -> bool:
    if isinstance(node.type, tuple):
        return False
    behind = (graph[name] for name in graph.behind({node.name}))
    is_floating = any(type_.is_floating for type_ in tensors(node.type))
    return not is_floating and all(n.level == "ops" or n.op in ("input", "const") for n in behind)


def _named(program: Program, values: list[str]) -> Mapping[str, str]:
    """The backbone's outputs under KerasHub's names: those that the model returns itself, and others by their rank."""
    words = {**OUTPUT_NAMES, **ENCODER_OUTPUT_NAMES}
    returned = dict(zip(program.main.outputs, program.outputs, strict=True))
    encoder = words["encoder_last_hidden_state"]
    known = {value: words[returned[value]] for value in values if returned.get(value) in words}
    sequence = words["last_hidden_state"] if encoder in known.values() else OUTPUT_NAMES["last_hidden_state"]
    found: dict[str, str] = {}
    for value in values:
        rank = program.main[value].tensor.rank
        wish = known.get(value) or {3: sequence, 2: OUTPUT_NAMES["pooler_output"]}.get(rank, clean(value))
        found[numbered(wish, found)] = value
    return found


def _task(program: Program, model_class: str, causal: bool) -> tuple[str, str]:
    """The class of KerasHub that does what the head does, and what the package calls its own."""
    graph = program.main
    if LOGITS in program.outputs:
        logits = graph[graph.outputs[program.outputs.index(LOGITS)]].tensor
        embedded = list(_embedded(program, graph, {node.name: node.tensor for node in graph.inputs}))
        streams = {str(tokens.shape[1]) for _, tokens in embedded}
        scores = any(_scores_tokens(node, tokens, logits) for node, tokens in embedded)
        decodes = len(streams) == 2 or any(node.name == DECODER_TOKENS for node in graph.inputs)
        if scores and causal and decodes:
            return SEQ_2_SEQ_LM, SEQ_2_SEQ_LM
        if scores and len(streams) == 1 and len(program.outputs) == 1:
            return (CAUSAL_LM, CAUSAL_LM) if causal else ("MaskedLM", "MaskedLM")
        if len(program.outputs) == 1 and logits.rank == 2 and isinstance(logits.shape[0], Expr):
            if len(streams) == 1 and not any(node.tensor.is_floating for node in graph.inputs):
                return "TextClassifier", "TextClassifier"
            if {INPUT_NAMES.get(node.name) for node in graph.inputs} == {_IMAGES}:
                return IMAGE_CLASSIFIER, IMAGE_CLASSIFIER
    return "Task", model_class.partition("For")[2] or f"{model_class}Task"


def _embedded(program: Program, graph: Graph, given: Mapping[str, Tensor]) -> Iterator[tuple[Node, Tensor]]:
    """The embeddings of the model's inputs, in whatever layer, each with its input; `given` has the inputs by the names
    that they have in this graph. Tokens of which some are replaced, those of images, are still the tokens."""
    for node in graph:
        if node.op == "ops.where" and node.tensor in (given.get(name or "") for name in node.operands[1:]):
            given = {**given, node.name: node.tensor}
        read = {place: given[name] for place, name in enumerate(node.operands) if name and name in given}
        if node.op in _EMBEDDINGS and 0 in read and not node.attrs.get("reverse"):
            yield node, read[0]
        if node.op == "call" and read:
            callee = program.graphs[str(node.attrs["graph"])]
            yield from _embedded(program, callee, {callee.inputs[place].name: read[place] for place in read})


def _scores_tokens(embedding: Node, tokens: Tensor, logits: Tensor) -> bool:
    """Whether there is a number for every entry of the vocabulary at every position.

    A table may have entries that are read and never predicted, some more than the vocabulary.
    """
    if logits.rank != 3 or logits.shape[:2] != tokens.shape:
        return False
    vocabulary, scored = embedding.attrs["input_dim"], logits.shape[2]
    return same(scored, vocabulary) or bool(names_of(scored) and names_of(scored) <= names_of(vocabulary))
