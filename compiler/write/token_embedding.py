"""Where a backbone keeps the layer that embeds its tokens; KerasHub asks for it as `token_embedding`."""

from hf2khc.ir.graph import Graph
from hf2khc.write.analysis import Analysis
from hf2khc.write.members import members
from hf2khc.write.source_text import indent

ATTRIBUTE = "token_embedding"
_EMBEDDINGS = ("layers.Embedding", "layers.ReversibleEmbedding")


def token_embedding(analysis: Analysis) -> list[str]:
    """A property of the backbone for an embedding that sits in a layer of it; nothing where it is an attribute."""
    graph = analysis.plan.program.main
    tokens = [n.name for n in graph.inputs if analysis.plan.inputs[n.name][0].endswith("token_ids")]
    found = next(filter(None, (_reference(analysis, graph, name) for name in tokens)), "")
    # An attribute of that name may be a layer of the package around the embedding; it keeps the name.
    if not found or any(member.attribute == ATTRIBUTE for member in members(analysis, graph).values()):
        return []
    return ["@property", f"def {ATTRIBUTE}(self):", *indent([f"return {found}"])]


def _reference(analysis: Analysis, graph: Graph, tokens: str) -> str:
    """The expression for the embedding of a value, in a method of the graph's class; empty where there is none."""
    owned = members(analysis, graph)
    for node in analysis.printed(graph.name):
        if tokens not in node.operands:
            continue
        if node.op in _EMBEDDINGS and node.operands[0] == tokens:
            return owned[node.name].reference
        if node.op == "call":
            callee = analysis.plan.program.graphs[str(node.attrs["graph"])]
            inner = _reference(analysis, callee, callee.inputs[node.operands.index(tokens)].name)
            if inner:
                return f"{owned[node.name].reference}.{inner.removeprefix('self.')}"
    return ""
