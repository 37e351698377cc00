"""Blocks of statements: a blank line and a comment before each."""

from collections.abc import Sequence

from hf2khc.ir.graph import Node
from hf2khc.write.members import INDEX

Part = tuple[Node, list[str]]


def commented(parts: Sequence[Part]) -> list[str]:
    """The lines of all statements; residual blocks and loops get a comment.

    A block ends where its result is added to the stream again. A single block needs no comment.
    """
    blocks = _blocks(parts)
    named = [_title(block) for block in blocks]
    if sum(title is not None for title in named) < 2:
        return _with_loops(parts)
    lines: list[str] = []
    for block, title in zip(blocks, named, strict=True):
        if title:
            lines += ["", f"# {title} block."] if lines else [f"# {title} block."]
        lines += _with_loops(block)
    return [*lines, ""]


def _blocks(parts: Sequence[Part]) -> list[list[Part]]:
    blocks: list[list[Part]] = [[]]
    for part in parts:
        blocks[-1].append(part)
        if part[0].op == "ops.add" and _title(blocks[-1]):
            blocks.append([])
    return [block for block in blocks if block]


def _title(block: Sequence[Part]) -> str | None:
    """What the block is about: the last class of the package it calls."""
    calls = [str(node.attrs["name"]) for node, _ in block if node.op == "call"]
    if not calls:
        return None
    words = calls[-1].replace("_", " ").strip()
    return f"{'MLP' if words == 'mlp' else words[0].upper() + words[1:]}"


def _with_loops(parts: Sequence[Part]) -> list[str]:
    lines: list[str] = []
    for node, text in parts:
        if node.op == "loop" and INDEX in str(node.attrs["name"]):
            words = str(node.attrs["name"]).replace(INDEX, "").strip("_").replace("_", " ")
            lines.append(f"# Apply the {words}s.")
        lines += text
    return lines
