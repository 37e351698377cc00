"""Names in the printed code."""

import builtins
import itertools
import keyword
import re
from collections.abc import Iterable

RESERVED = frozenset(
    {*keyword.kwlist, *dir(builtins), "self", "ops", "keras", "math", "training", "dtype", "kwargs", "i"}
)

# Names that only say which operation made a value; `x` says as much.
_SAYS_NOTHING = frozenset(
    """
    linear add mul view transpose to matmul getitem get_item reshape output out result tensor y z
    multiply gelu relu silu tanh dense cast permute contiguous expand unsqueeze squeeze embedding
    layer_norm rms_norm dropout softmax expand_dims concatenate cat stack where rsqrt einsum subtract
    sub divide div negative neg mean pow power square sum hidden_states x activation item conv2d flatten
    clone broadcast_to repeat take slice a b c t h
    """.split()  # noqa: SIM905
)


def clean(name: str) -> str:
    """The name of a value as a Python name: no dots, no leading underscore, no trailing number."""
    text = re.sub(r"[^0-9A-Za-z]+", "_", name.removeprefix("@")).strip("_").lower()
    text = re.sub(r"(_\d+)+(?=_|$)", "", text) or "x"
    text = f"x{text}" if text[0].isdigit() else text
    return f"{text}s" if text in RESERVED else text


def says_nothing(name: str) -> bool:
    """Whether a cleaned name is better replaced by `x`."""
    return name in _SAYS_NOTHING or name == "sums" or name.startswith("scaled_dot_product_attention")


def choose(name: str, taken: Iterable[str], kind: str = "") -> str:
    """A free name for a value: `x` for one that says nothing, else its own, with `kind` of operation if need be."""
    taken = {*taken, *RESERVED}
    candidates = ["x", name] if says_nothing(name) else [name]
    candidates += [f"{name}_{kind}" if kind else name, "x", "y", "z", f"other_{name}", f"another_{name}"]
    candidates += [f"{name}_{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    more = (f"{name}_{number}" for number in itertools.count(2))
    return next(c for c in itertools.chain(candidates, more) if c not in taken)


_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def snake(name: str) -> str:
    """`LlamaRMSNorm` as `llama_rms_norm`."""
    return re.sub(r"[^0-9a-z]+", "_", _WORD_STARTS.sub("_", name).lower()).strip("_")


def spoken(name: str) -> str:
    """`GatedMLP` as `Gated MLP layer`, for the first line of a docstring."""
    words = [word if word.isupper() else word.lower() for word in _WORD_STARTS.sub(" ", name.replace("_", " ")).split()]
    words += [] if words[-1] == "layer" else ["layer"]
    return " ".join([words[0][0].upper() + words[0][1:], *words[1:]])


def without_prefix(name: str, prefix: str) -> str:
    """`GPT2Attention` as `Attention` for the prefix `Gpt2`."""
    return name[len(prefix) :] if name.lower().startswith(prefix.lower()) and len(name) > len(prefix) else name


def input_variable(name: str) -> str:
    """`token_ids` as `token_id_input`, as KerasHub calls the tensors of its functional models."""
    singular = name[:-1] if name.endswith("s") and not name.endswith("ss") else name
    return f"{singular}_input"


def input_names(names: Iterable[str]) -> dict[str, str]:
    """A Python name for every input of a graph, no two the same."""
    chosen: dict[str, str] = {}
    for name in names:
        # Keras hands an argument of the name `mask` the mask of the first input.
        wanted = "attention_mask" if clean(name) == "mask" else clean(name)
        chosen[name] = choose_input(wanted, set(chosen.values()))
    return chosen


def choose_input(name: str, taken: set[str]) -> str:
    """`name`, or with a letter where it is taken."""
    candidates = [name, *(f"{name}_{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
    return next(c for c in candidates if c not in taken)
