"""What a compiled program consists of, for the report."""

from collections import Counter

from hf2khc.ir.analysis import weight_values
from hf2khc.ir.graph import Program


def idioms(program: Program) -> dict[str, dict[str, int]]:
    """How often each layer is used, by graph."""
    found = {}
    for graph in program.callees_first():
        counts = Counter(node.op.partition(".")[2] for node in graph if node.level in ("layers", "hub"))
        counts.update(node.op for node in graph.of("loop"))
        if counts:
            found[graph.name] = dict(sorted(counts.items()))
    return found


def residue(program: Program) -> dict[str, int]:
    """How often each operation is printed as a bare `keras.ops` call."""
    counts: Counter[str] = Counter()
    for graph in program.callees_first():
        weights = weight_values(graph)
        counts.update(node.op for node in graph if node.op.startswith("ops.") and node.name not in weights)
    return dict(counts.most_common())
