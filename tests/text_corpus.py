"""Texts to tokenize: more than 2,000 lines, made from a compact source, always the same."""

import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

MARKS = (
    "a\u0301e\u0308o\u0302\u0303",
    "\u1e9e \u0130 \u0131 \ufb01 \ufb03 \u00bd \u2460 \u33a1 \u212b",
    "Z\u0351\u036b\u0343a\u0363\u034cl\u0348g\u034ao",
    "\U0001f642\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\U0001f1eb\U0001f1f7 \U0001f44d\U0001f3fd \u2764\ufe0f 1\ufe0f\u20e3",
    "\u200b\u200c\u200d\u2060\ufeff",
    "\u202eright to left\u202c",
    "\u00a0\u1680\u2003\u3000\u2028\u2029\u0085",
    "\x00\x01\x02\x07\x08\x0b\x0c\x1b[0m\x7f\x9f",
    "\ufffd\uffff\ue000\U000f0000\U0010ffff",
    "\U00020000\U0001d504\U0001d538\U00010348",
    "e\u0301 vs \u00e9, \uac00 vs \u1100\u1161",
    "\u0378\u0e33\u0eb3\u0f77",
)
SPACES = (
    "",
    " ",
    "  ",
    "\n",
    "\n\n\n",
    "\t\t",
    " \n \t\r\n ",
    "   leading",
    "trailing   ",
    "a  b   c    d",
    "a\u00a0b",
    "\r",
    "a\r\nb",
    " .",
    " ' ",
)
MORE = (
    "a" * 120,
    "ab " * 60,
    "." * 40,
    "!?!?...,,,;;;",
    "#1 @2 $3 %4 ^5 &6 *7",
    "0123456789" * 6,
    "i i'm I'M don't DON'T",
    "[] () {} <> << >>",
    "_a__b___",
)

CHANGES: tuple[Callable[[str], str], ...] = (
    lambda s: s,
    str.upper,
    str.lower,
    str.title,
    str.swapcase,
    lambda s: s.replace("a", "\u00e4"),
    lambda s: f"{s}\n\n{s[::-1]}",
    lambda s: s[::-1],
    lambda s: f" {s}",
    lambda s: f"{s} ",
    lambda s: f"  {s}\n",
    lambda s: f"\t{s}\r\n{s}",
    lambda s: s + s,
    lambda s: s.replace(" ", ""),
    lambda s: s.replace(" ", "  "),
    lambda s: s.replace(" ", "\n"),
    lambda s: unicodedata.normalize("NFD", s),
    lambda s: unicodedata.normalize("NFKC", s),
    lambda s: unicodedata.normalize("NFKD", s),
    lambda s: s[: len(s) // 2],
    lambda s: s[len(s) // 3 :],
    lambda s: s[::2],
    lambda s: "\u0301".join(s[:20]),
    lambda s: f'"{s}"',
    lambda s: f"({s})...",
    lambda s: "\u200d".join(s[:15]),
    lambda s: f"{s}\x00{s[:5]}",
    lambda s: "".join(sorted(s)),
    lambda s: " ".join(s[:30]),
)
INSERTS = (
    "{t}",
    "{t}{t}",
    " {t} ",
    "a{t}b",
    "{t}\n{s}",
    "{s}{t}",
    "{s} {t} {s}",
    "{t} {s}{t}",
    "{u}",
    "x{u} {t}x",
    "{half}",
)


def base_texts() -> list[str]:
    """Sentences in many languages and code, of the file beside this one; what is hard to see in a file; odd things."""
    lines = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return [*lines, *MARKS, *SPACES, *MORE]


def corpus(special: list[str]) -> list[str]:
    """The texts, in order and each once.

    Args:
        special: tokens that stand in some of them.
    """
    return list(dict.fromkeys([*_plain(), *_with_special(special)]))


def _plain() -> Iterator[str]:
    for text in base_texts():
        for change in CHANGES:
            yield change(text)


def _with_special(special: list[str]) -> Iterator[str]:
    for token in special:
        for text in base_texts()[::4]:
            for insert in INSERTS:
                yield insert.format(t=token, s=text, u=token.upper(), half=token[:-1])
