"""How the package makes inputs of text: the model's tokenizer, and the preprocessor that the inputs ask for."""

import json
from collections.abc import Mapping
from dataclasses import replace

from hf2khc.capture.source import Source
from hf2khc.capture.tokenizer import Tokenizer, decoder_prompt, pad_token_id, read_tokenizer
from hf2khc.driver.head import CAUSAL_LM, SEQ_2_SEQ_LM
from hf2khc.write import preprocessor_class as kinds
from hf2khc.write.plan import Plan, Text

# The longest packed sequences unless the model has a lower limit, as in KerasHub.
_MOST_GENERATED, _MOST_READ = 1024, 512
_TOKENS, _SEGMENTS = "token_ids", "segment_ids"
ONE_TEXT = frozenset({_TOKENS, "padding_mask", _SEGMENTS})
_TWO = frozenset(f"{part}_{name}" for part in ("encoder", "decoder") for name in (_TOKENS, "padding_mask"))
# Names of transformers for the tokens that KerasHub calls so, the first that there is.
_ROLES = {
    "start_token": ("bos_token", "cls_token"),
    "end_token": ("eos_token", "sep_token"),
    "pad_token": ("pad_token",),
    "mask_token": ("mask_token",),
}


def with_text(plan: Plan, source: Source) -> tuple[Plan, str]:
    """The plan with what makes its inputs of text, or why it has none; that is empty where the model takes no text."""
    names = {name for name, _ in plan.inputs.values()}
    if not any(name.endswith(_TOKENS) for name in names):
        return plan, ""
    tokenizer, reason = read_tokenizer(source)
    if tokenizer is None:
        return plan, reason
    kind, settings, reason = _preprocessor(plan, names, tokenizer, source)
    length = _length(plan, tokenizer, _MOST_READ)
    return replace(plan, text=Text(tokenizer.file, _arguments(tokenizer, source), kind, settings, length)), reason


def _arguments(tokenizer: Tokenizer, source: Source) -> dict[str, object]:
    named = tokenizer.special_tokens
    found: dict[str, object] = {
        role: next((named[name] for name in names if name in named), None) for role, names in _ROLES.items()
    }
    found["pad_token"] = found["pad_token"] or _token(tokenizer, pad_token_id(source)) or found["end_token"]
    found |= {"padding_side": tokenizer.padding_side, "truncation_side": tokenizer.truncation_side}
    found |= {"pad_segment_id": tokenizer.pad_segment_id, "split_special_tokens": tokenizer.split_special_tokens}
    found |= {"clean_up": tokenizer.clean_up, "decodes": tokenizer.decodes}
    if tokenizer.chat_template:
        found |= {"chat_template": tokenizer.chat_template, "chat_tokens": dict(named)}
    return found


def _token(tokenizer: Tokenizer, token_id: int | None) -> str | None:
    """The token of an id, in the file."""
    if token_id is None:
        return None
    data = json.loads(tokenizer.file)
    vocabulary = data["model"].get("vocab") or {}
    pairs = vocabulary.items() if isinstance(vocabulary, Mapping) else ((t, i) for i, (t, _) in enumerate(vocabulary))
    found = {i: token for token, i in pairs} | {entry["id"]: entry["content"] for entry in data["added_tokens"]}
    return found.get(token_id)


def _preprocessor(
    plan: Plan, names: set[str], tokenizer: Tokenizer, source: Source
) -> tuple[str, dict[str, object], str]:
    """KerasHub's class, its settings, and why there is none where there is none."""
    task = plan.head.task if plan.head is not None else ""
    if task in (CAUSAL_LM, SEQ_2_SEQ_LM) and not tokenizer.decodes:
        return "", {}, "its tokenizer makes text of tokens with code that is not in its file"
    if names == _TWO and task in ("", SEQ_2_SEQ_LM):
        start = list(decoder_prompt(source))
        length = _length(plan, tokenizer, _MOST_GENERATED)
        settings = {"encoder_sequence_length": length, "decoder_sequence_length": length}
        missing = "" if start else "no config says what token an answer begins with"
        return ("", {}, missing) if missing else (
            kinds.SEQ_2_SEQ_LM, {"decoder_start_token_ids": start, **settings}, "",
        )  # fmt: skip
    if not names <= ONE_TEXT or _TOKENS not in names:
        others = sorted(names - ONE_TEXT - _TWO) or sorted(names)
        return "", {}, f"it takes more than text: {', '.join(others)}"
    if task == CAUSAL_LM:
        length = _length(plan, tokenizer, _MOST_GENERATED)
        ends = "eos_token" in tokenizer.special_tokens
        return kinds.CAUSAL_LM, {"sequence_length": length, "add_end_token": ends}, ""
    masks = task == "MaskedLM" and "mask_token" in tokenizer.special_tokens
    return (
        kinds.MASKED_LM if masks else kinds.TEXT_CLASSIFIER,
        {"sequence_length": _length(plan, tokenizer, _MOST_READ)},
        "",
    )


def _length(plan: Plan, tokenizer: Tokenizer, most: int) -> int:
    """What is packed by default: no longer than the tokenizer or the positions of the model allow."""
    limits = [field.value for field in plan.fields if field.name.endswith("max_sequence_length")]
    return min([most, *(n for n in (*limits, tokenizer.max_length) if isinstance(n, int) and n > 0)])
