"""Recognise the frequencies of rotary position embeddings."""

from dataclasses import replace

import networkx as nx

from hf2khc.ir.analysis import module_paths
from hf2khc.ir.frequencies import Frequencies, frequencies
from hf2khc.ir.graph import Graph, Node, Program, join


def recognize_frequencies(program: Program) -> Program:
    """Turn tables of frequencies that follow from a wavelength into `hub.rotary_frequencies`.

    Two layers that differ by their wavelength are then one graph with a parameter, and the number has a field.

    Before:

        graph Rotary(%positions: f32[1, seq, 1]) {
          const @inv_freq: f32[2]
          %angles: f32[1, seq, 2] = ops.multiply(%positions, @inv_freq)
          %cos: f32[1, seq, 2] = ops.cos(%angles)
          return %cos
        }

        entry Rotary
        constant @inv_freq: f64[2] = (1.0, 0.01)

    After:

        graph Rotary(%positions: f32[1, seq, 1]) {
          %frequencies: f32[2] = hub.rotary_frequencies(max_wavelength=10000.0, size=4, scaling_factor=1.0)
          %angles: f32[1, seq, 2] = ops.multiply(%positions, %frequencies)
          %cos: f32[1, seq, 2] = ops.cos(%angles)
          return %cos
        }

        entry Rotary
        constant @inv_freq: f64[2] = (1.0, 0.01)
    """
    paths = module_paths(program)

    def recognized(graph: Graph) -> Graph:
        renamed: dict[str, str] = {}
        nodes = []
        for node in graph:
            table = program.constants[join(paths[graph.name], node.name[1:])] if _turns(graph, node) else None
            found = None if table is None else frequencies(table)
            if found is not None:
                renamed[node.name] = graph.fresh("frequencies", taken=renamed.values())
                node = _table(node, found)
            nodes.append(node)
        return graph.replaced(nodes).renamed(renamed) if renamed else graph

    return program.map(recognized)


def _turns(graph: Graph, node: Node) -> bool:
    """Whether a constant gives angles: slopes of ALiBi fall off the same way."""
    after = nx.descendants(graph.nx, node.name) if node.op == "const" else ()
    return any(graph[name].op in ("ops.cos", "ops.sin") for name in after)


def _table(node: Node, found: Frequencies) -> Node:
    attrs = {"max_wavelength": found.max_wavelength, "size": found.size, "scaling_factor": found.scaling_factor}
    return replace(
        node, op="hub.rotary_frequencies", attrs=attrs, origin=node.origin | {recognize_frequencies.__name__}
    )
