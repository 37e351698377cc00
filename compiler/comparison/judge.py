"""What a way did, held against what the model is: one cell for each criterion, each with its number and its reason."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Facts = Mapping[str, Any]
# A config value that KerasHub calls by another name where keys and values have fewer heads.
_OTHER_NAMES = {"num_heads": "num_query_heads"}
_LINEAR, _CONVOLUTION, _EMBEDDING = "linear", "convolution", "embedding"
_RANKS = (1, 2, 3)
_OF_TORCH = {"Linear": _LINEAR, "Conv1D": _LINEAR} | {
    f"Conv{transpose}{rank}d": _CONVOLUTION for rank in _RANKS for transpose in ("", "Transpose")
}
_OF_KERAS = {"Dense": _LINEAR, "EinsumDense": _LINEAR, "DepthwiseConv2D": _CONVOLUTION} | {
    f"Conv{rank}D{transpose}": _CONVOLUTION for rank in _RANKS for transpose in ("", "Transpose")
}
_REVERSE = "reverse_embeddings"
MOST_NAMES = 4


@dataclass(frozen=True)
class Cell:
    """One cell.

    Args:
        text: what the table shows.
        share: how much of it is right, from 0 to 1; None where that is no share.
    """

    text: str
    share: float | None = None


def cells(facts: Facts, result: Facts) -> dict[str, Cell]:
    """A cell for each criterion, in the order of the table."""
    if "error" in result:
        reason = f"not measured: no package ([{result['error']['code']}])"
        found = {name: Cell(reason, 0.0 if scored else None) for name, (_, scored) in CRITERIA.items()}
        message = result["error"]["message"]
        return {**found, SUPPORT: Cell(f"no: [{result['error']['code']}] {message}", 0.0)}
    return {name: judged(facts, result) for name, (judged, _) in CRITERIA.items()}


def _consumed(facts: Facts, result: Facts) -> set[str]:
    placed = {name for names in result["placed"].values() for name in names}
    return placed | {name for name, of in facts["repeats"].items() if of in placed}


def _accounted(facts: Facts, result: Facts) -> dict[str, bool]:
    """Whether all tensors of a module are placed, or not needed for a reason that is given."""
    known = _consumed(facts, result) | set(result.get("explained", {}))
    return {module["path"]: set(module["tensors"]) <= known for module in facts["modules"]}


def _understanding(facts: Facts, result: Facts) -> Cell:
    found = _accounted(facts, result)
    return _of("modules with parameters accounted for", [path for path, good in found.items() if not good], found)


def _detection(facts: Facts, result: Facts) -> Cell:
    right = _right_kind(facts, result)
    return _of("layers of the right kind", [path for path, good in right.items() if not good], right)


def _right_kind(facts: Facts, result: Facts) -> dict[str, bool]:
    """Whether what holds a module's tensors is a layer of its kind; modules of no common kind are left out."""
    biased = {path.rpartition("/")[0] for path in result["layers"] if path.endswith(("/beta", "/bias"))}
    holders: dict[str, set[str | None]] = {}
    for path, names in result["placed"].items():
        owner, _, leaf = path.rpartition("/")
        # KerasHub's embedding holds the matrix of the logits, too, where that is not tied.
        kind = _LINEAR if leaf == _REVERSE else keras_kind(result["layers"].get(path, ""), owner in biased)
        for name in names:
            holders.setdefault(name, set()).add(kind)
    right = {}
    for module in facts["modules"]:
        wanted = torch_kind(module["class"], module["bias"])
        if wanted is not None:
            names = [facts["repeats"].get(name, name) for name in module["tensors"]]
            # A matrix that is also the token embedding lies there.
            allowed = {wanted} | ({_EMBEDDING} if wanted == _LINEAR and _shared(facts, names) else set())
            right[module["path"]] = all(holders.get(name, {None}) <= allowed for name in names)
    return right


def _shared(facts: Facts, names: Iterable[str]) -> bool:
    wanted = set(names)
    return any(wanted & set(m["tensors"]) for m in facts["modules"] if torch_kind(m["class"], False) == _EMBEDDING)


def torch_kind(name: str, bias: bool) -> str | None:
    """The kind of a module by its class: linear, convolution, embedding or a norm; None for any other."""
    return _OF_TORCH.get(name) or _embedding_or_norm(name, bias)


def keras_kind(name: str, bias: bool) -> str | None:
    """The same for a layer of Keras."""
    return _OF_KERAS.get(name) or _embedding_or_norm(name, bias)


def _embedding_or_norm(name: str, bias: bool) -> str | None:
    lower = name.lower()
    if "norm" in lower:
        special = next((kind for kind in ("batch", "group") if kind in lower), None)
        plain = bias or name in ("LayerNorm", "LayerNormalization")
        return f"{special or ('layer' if plain else 'rms')} norm"
    return _EMBEDDING if "embedding" in lower else None


def _accuracy(facts: Facts, result: Facts) -> Cell:
    values, fields = result["values"], facts["fields"]
    right: list[str] = []
    wrong: list[str] = []
    absent: list[str] = []
    for name, value in fields.items():
        here = values.get(name, values.get(_OTHER_NAMES.get(name, name)))
        (absent if here is None else right if here == value else wrong).append(name)
    placed = _consumed(facts, result) & set(facts["tensors"])
    text = f"config values: {len(right)} right, {_listed(wrong, 'wrong')}, {_listed(absent, 'absent')}; "
    text += f"tensors placed: {len(placed)} of {len(facts['tensors'])}; "
    text += f"parameters: {result['parameters']:,} of {facts['parameters']:,}"
    return Cell(text, len(placed) / max(1, len(facts["tensors"])))


def _listed(names: list[str], what: str) -> str:
    return f"{len(names)} {what}" + (f" ({_some(names)})" if names else "")


def _parts(facts: Facts, result: Facts) -> Cell:
    accounted, right = _accounted(facts, result), _right_kind(facts, result)
    lost = [
        name for name, below in facts["parts"].items()
        if not all(accounted[path] and right.get(path, True) for path in below)
    ]  # fmt: skip
    if not facts["parts"]:
        return Cell("not measured: the model has no class of its own with parameters")
    return _of("classes of the model's own", lost, facts["parts"])


def _forward(facts: Facts, result: Facts) -> Cell:
    worst: dict[str, Mapping[str, Any]] = {}
    for row in result["rows"]:
        before = worst.get(row["output"])
        if before is None or _badness(row) > _badness(before):
            worst[row["output"]] = row
    if not worst:
        return Cell("not measured: " + (_some(result["problems"][:1]) or "nothing could be compared"), 0.0)
    lost = result.get("lost", [])
    texts = [f"{name}: {_error(row)}" for name, row in worst.items()]
    texts += [f"{name}: the package lacks it" for name in lost]
    return Cell("; ".join(texts), sum(row["holds"] for row in worst.values()) / (len(worst) + len(lost)))


def _badness(row: Mapping[str, Any]) -> tuple[bool, float]:
    return (not row["holds"], float("inf") if row["ours"] is None else row["ours"])


def _error(row: Mapping[str, Any]) -> str:
    if row["ours"] is None:
        return str(row["problem"])
    theirs = f", transformers' own {row['theirs']:.1e}" if row["theirs"] is not None else ""
    return f"{row['ours']:.1e}{theirs}, {'holds' if row['holds'] else 'differs'}"


def _support(facts: Facts, result: Facts) -> Cell:
    return Cell(f"yes: {result['made']}", 1.0)


def _cost(facts: Facts, result: Facts) -> Cell:
    return Cell(f"{result['seconds']:.1f} s, {result['peak_bytes'] / 2**30:.2f} GiB")


def _of(what: str, lost: list[str], every: Mapping[str, Any]) -> Cell:
    if not every:
        return Cell(f"not measured: there are no {what}")
    good = len(every) - len(lost)
    missing = f" (not: {_some(lost)})" if lost else ""
    return Cell(f"{good} of {len(every)} {what}{missing}", good / len(every))


def _some(names: list[str]) -> str:
    return ", ".join(names[:MOST_NAMES]) + (", ..." if len(names) > MOST_NAMES else "")


SUPPORT = "new-model support"
# By criterion: what judges it, and whether a model that was not converted counts as 0 in it.
CRITERIA: Mapping[str, tuple[Callable[[Facts, Facts], Cell], bool]] = {
    "model understanding": (_understanding, True),
    "layer detection": (_detection, True),
    "parameter accuracy": (_accuracy, True),
    "architecture-specific parts": (_parts, True),
    "forward pass": (_forward, True),
    SUPPORT: (_support, True),
    "time and peak memory": (_cost, False),
}
