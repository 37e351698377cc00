"""How transformers turns text into the inputs of a model: its tokenizer as one `tokenizer.json`, and its settings."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hf2khc.capture.build import quiet
from hf2khc.capture.generation_defaults import generation_config
from hf2khc.capture.source import Source

# Any of these is a vocabulary that transformers knows how to read.
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "tekken.json", "*.tiktoken", "spiece.model")
# Beyond this a length is no limit: transformers writes a huge number where there is none.
_NO_LIMIT = 10**9
# Texts that tell a tokenizer that is its `tokenizer.json` from one with code around it.
_PROBES = (
    "", " ", "Hello, world!", "  two  spaces\tand\ttabs\n\nlines \r\n", "don't  they're I've we'll n't . , ? !",
    "na\u00efve cafe\u0301 \u1e9e\u0130 \ufb01 \u00bd \u2460", "日本語のテキスト。中文，标点！한국어",
    "русский текст العربية עברית हिन्दी ไทย", "🙂 👩\u200d👩\u200d👧 🇫🇷 \u200b\u00ad\u00a0",
    "def f(x):\n    return {x: [1, 2.5e-3]}  # comment", "\x00\x01\x1f\x7f\u2028\ufffd", "a" * 150,
    "UPPER lower MiXeD 1234567890 3.14 #tag @user http://a.b/c?d=e&f=g", "\ue000 \U0001f9ff \U000e0041",
)  # fmt: skip


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer, as text and data.

    Args:
        file: the content of its `tokenizer.json`, as the library `tokenizers` reads it.
        special_tokens: `bos_token`, `eos_token` and the like, as transformers names them.
        padding_side: where padding stands.
        truncation_side: where a text that is too long is cut.
        pad_segment_id: the segment of padding.
        split_special_tokens: whether special tokens in a text are text.
        clean_up: whether decoding removes spaces before punctuation.
        chat_template: of Jinja, or several by name.
        max_length: of a text with its special tokens; None for no limit.
        decodes: whether the file says how tokens become text, too.
    """

    file: str
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    padding_side: str = "right"
    truncation_side: str = "right"
    pad_segment_id: int = 0
    split_special_tokens: bool = False
    clean_up: bool = False
    chat_template: str | Mapping[str, str] | None = None
    max_length: int | None = None
    decodes: bool = True


def read_tokenizer(source: Source) -> tuple[Tokenizer | None, str]:
    """The tokenizer of a model, or None and why it has none that can be carried over; a live model never has one."""
    if source.live is not None:
        return None, ""
    if source.directory is None:
        return None, "a config alone comes without a tokenizer"
    directory = Path(source.directory)
    if not any(next(directory.glob(pattern), None) for pattern in VOCABULARIES):
        return None, "its folder holds no vocabulary"
    try:
        with quiet():
            found = AutoTokenizer.from_pretrained(
                str(directory), local_files_only=True, trust_remote_code=source.trust_remote_code
            )
    except Exception as error:  # transformers and the code of a tokenizer may fail in any way
        return None, f"transformers cannot load it ({type(error).__name__}: {str(error).splitlines()[0:1]})"
    return as_data(found)


def as_data(found: PreTrainedTokenizerBase) -> tuple[Tokenizer | None, str]:
    """A tokenizer of transformers as data, or None and why it is more than its data."""
    backend = getattr(found, "backend_tokenizer", None)
    if not isinstance(backend, tokenizers.Tokenizer):
        return None, f"{type(found).__name__} is Python code, not a tokenizer.json"
    file = _content(backend)
    tokenizer = Tokenizer(
        file=file,
        special_tokens=dict(found.special_tokens_map),
        padding_side=found.padding_side,
        truncation_side=found.truncation_side,
        pad_segment_id=found.pad_token_type_id,
        split_special_tokens=found.split_special_tokens,
        clean_up=_cleans_up(found),
        chat_template=found.chat_template,
        max_length=found.model_max_length if found.model_max_length < _NO_LIMIT else None,
    )
    different = _difference(found, tokenizer)
    if different is not None:
        return None, f"{type(found).__name__} does more than its tokenizer.json says: {different!r} comes out otherwise"
    return replace(tokenizer, decodes=_decodes(found, tokenizer)), ""


def decoder_prompt(source: Source) -> tuple[int, ...]:
    """The tokens that transformers begins an answer of an encoder-decoder with; none where no config says."""
    config = generation_config(source)
    start = config.decoder_start_token_id
    if start is None:
        start = getattr(source.config, "decoder_start_token_id", None)
    forced = config.forced_bos_token_id
    tokens = [start[0] if isinstance(start, list) else start, forced]
    return tuple(int(token) for token in tokens if token is not None) if tokens[0] is not None else ()


def pad_token_id(source: Source) -> int | None:
    """The token that the configs pad with, where they name one."""
    for config in (source.config, generation_config(source)):
        token = getattr(config, "pad_token_id", None)
        if isinstance(token, int) and token >= 0:
            return token
    return None


def _content(backend: tokenizers.Tokenizer) -> str:
    """The tokenizer without truncation and padding, which are for the caller to ask for."""
    data = json.loads(backend.to_str())
    data["truncation"], data["padding"] = None, None
    return json.dumps(data, ensure_ascii=False)


def _cleans_up(found: Any) -> bool:
    """As `TokenizersBackend._decode` decides it: never for BPE, unless told to all the same."""
    forced = getattr(found, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", False)
    is_bpe = type(found.backend_tokenizer.model).__name__ == "BPE"
    return bool(found.clean_up_tokenization_spaces) and (forced or not is_bpe)


def _difference(found: Any, tokenizer: Tokenizer) -> str | None:
    """A text whose tokens are not those of the file alone."""
    alone = tokenizers.Tokenizer.from_str(tokenizer.file)
    alone.encode_special_tokens = tokenizer.split_special_tokens
    with quiet():
        for text in _texts(tokenizer):
            for special in (True, False):
                expected = found(text, add_special_tokens=special)["input_ids"]
                if alone.encode(text, add_special_tokens=special).ids != expected:
                    return text
        pair = ("a b", "c")
        with suppress(KeyError):
            expected = found(*pair, return_token_type_ids=True)
            made = alone.encode(*pair)
            if (made.ids, made.type_ids) != (expected["input_ids"], expected["token_type_ids"]):
                return " / ".join(pair)
    return None


def _decodes(found: Any, tokenizer: Tokenizer) -> bool:
    """Whether the text of tokens is what the file says."""
    alone = tokenizers.Tokenizer.from_str(tokenizer.file)
    with quiet():
        for text in _texts(tokenizer):
            ids = found(text)["input_ids"]
            decoded = alone.decode(ids, skip_special_tokens=False)
            if (found.clean_up_tokenization(decoded) if tokenizer.clean_up else decoded) != found.decode(ids):
                return False
    return True


def _texts(tokenizer: Tokenizer) -> tuple[str, ...]:
    named = " ".join(tokenizer.special_tokens.values())
    return (*_PROBES, f"a {named} b{named}c")
