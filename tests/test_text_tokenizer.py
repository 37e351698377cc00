"""The printed tokenizer gives the ids, the text, the packed rows and the chats that transformers gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from text_corpus import corpus
from text_packages import text_package
from text_vocabularies import KINDS

from hf2khc.capture.tokenizer import as_data

# What UTF-8 can hold, and so every tokenizer: no lone surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@pytest.fixture(scope="module", params=list(KINDS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Transformers' tokenizer and the printed one."""
    theirs = KINDS[request.param]()
    module = text_package(tmp_path_factory.mktemp(request.param), f"text_{request.param}", theirs)
    return theirs, module.LlamaTokenizer(**module.arguments)


def special_of(theirs: Any) -> list[str]:
    return list(theirs.added_tokens_encoder)[:8]


def test_ids_and_text_of_the_corpus(pair: tuple[Any, Any]) -> None:
    theirs, ours = pair
    texts = corpus(special_of(theirs))
    assert len(texts) >= 2000
    expected = theirs(texts, add_special_tokens=False)["input_ids"]
    found = ours(texts)
    wrong = [text for text, a, b in zip(texts, expected, found, strict=True) if a != b]
    assert not wrong, wrong[:3]
    assert sum(map(len, found)) > 20_000
    for ids in expected[::3]:
        assert ours.detokenize(ids) == theirs.decode(ids)


def test_ids_and_text_of_any_string(pair: tuple[Any, Any]) -> None:
    theirs, ours = pair
    pieces = st.lists(TEXT | st.sampled_from(special_of(theirs)), max_size=4).map("".join)

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(pieces)
    def check(text: str) -> None:
        expected = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours(text) == expected
        assert ours.detokenize(expected) == theirs.decode(expected)

    check()


@pytest.mark.parametrize("length", [4, 9, 60])
def test_packed_rows(pair: tuple[Any, Any], length: int) -> None:
    theirs, ours = pair
    texts = ["The quick brown fox", "", "größer! " * 20, special_of(theirs)[1] + " x"]
    seconds = ["", "jumps over", "b " * 30, "."]
    for second in (None, seconds):
        expected = theirs(
            texts, second, padding="max_length", truncation=True, max_length=length, return_token_type_ids=True
        )  # fmt: skip
        found = ours.pack(texts, second, sequence_length=length)
        for mine, name in (("token_ids", "input_ids"), ("padding_mask", "attention_mask")):
            np.testing.assert_array_equal(np.asarray(found[mine]), expected[name])
        np.testing.assert_array_equal(np.asarray(found["segment_ids"]), expected["token_type_ids"])


def test_rows_have_room_for_the_tokens_around_a_text(pair: tuple[Any, Any]) -> None:
    theirs, ours = pair
    for second in (None, "b"):
        around = theirs.num_special_tokens_to_add(second is not None)
        packed = ours.pack("a", second, sequence_length=around + 2, prefix=[3, 4])
        expected = theirs("a", second, truncation=True, max_length=around)["input_ids"] if around else []
        assert sorted(np.asarray(packed["token_ids"]).tolist()) == sorted([3, 4, *expected])
        with pytest.raises(ValueError, match=f"at least {around + 2}"):
            ours.pack("a", second, sequence_length=around + 1, prefix=[3, 4])


def test_inputs_of_every_form(pair: tuple[Any, Any]) -> None:
    _, ours = pair
    rows = ours(["one two", ""])
    assert rows == [ours("one two"), []] and rows[0]
    assert ours(np.array(["one two", ""])) == ours(("one two", "")) == ours([b"one two", b""]) == rows
    assert ours([["one two"], ["", "one two"]]) == [[rows[0]], [[], rows[0]]]
    text = ours.detokenize(rows[0])
    assert ours.detokenize(rows) == [text, ""] and ours.detokenize(np.array(rows[0])) == text
    assert ours.detokenize(rows[0][0]) == ours.detokenize(rows[0][:1])
    assert ours.tokenize("one two") == rows[0]


def test_the_vocabulary(pair: tuple[Any, Any]) -> None:
    theirs, ours = pair
    assert ours.vocabulary_size() == len(theirs) == len(ours.get_vocabulary())
    assert {token: ours.token_to_id(token) for token in ours.get_vocabulary()} == theirs.get_vocab()
    assert ours.end_token_id == (theirs.eos_token_id if theirs.eos_token else theirs.sep_token_id)
    assert ours.pad_token_id == theirs.pad_token_id
    assert set(theirs.all_special_ids) <= set(ours.special_token_ids)
    with pytest.raises(ValueError, match="not in the vocabulary"):
        ours.token_to_id("no such token")


def test_saved_and_loaded(pair: tuple[Any, Any], tmp_path: Path) -> None:
    _, ours = pair
    ours.pack("a", sequence_length=3)  # leaves its truncation behind
    ours.save_assets(str(tmp_path))
    copy = type(ours).from_config(ours.get_config())
    with pytest.raises(ValueError, match="no vocabulary yet"):
        copy("x")
    copy.load_assets(str(tmp_path))
    texts = corpus([])[::40]
    assert copy(texts) == ours(texts) and copy.get_config() == ours.get_config()
    assert '"truncation": null' in (tmp_path / "tokenizer.json").read_text(encoding="utf-8")


def test_what_is_more_than_its_file_is_refused() -> None:
    tokenizer = KINDS["bpe"]()
    kind = type(tokenizer)

    class Reversed(kind):  # type: ignore[valid-type, misc]
        def _encode_plus(self, text: Any, *arguments: Any, **options: Any) -> Any:
            return super()._encode_plus(text[::-1], *arguments, **options)

    tokenizer.__class__ = Reversed
    assert as_data(tokenizer)[0] is None and "comes out otherwise" in as_data(tokenizer)[1]


def test_decoding_with_code_is_no_decoding(tmp_path: Path) -> None:
    tokenizer = KINDS["bpe"]()

    class Spoken(type(tokenizer)):  # type: ignore[misc]
        def _decode(self, *arguments: Any, **options: Any) -> str:
            return super()._decode(*arguments, **options).upper()

    tokenizer.__class__ = Spoken
    module = text_package(tmp_path, "text_spoken", tokenizer)
    ours = module.LlamaTokenizer(**module.arguments)
    assert ours("the fox") == tokenizer("the fox", add_special_tokens=False)["input_ids"]
    with pytest.raises(NotImplementedError, match="not in its file"):
        ours.detokenize([1])
