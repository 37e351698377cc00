"""A small vocabulary of every kind, trained here, as transformers' tokenizers."""

from collections.abc import Callable, Mapping
from typing import Any

import tokenizers
from text_corpus import base_texts
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
BERT = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] | upper }}: {{ m['content'] | trim }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<s>ASSISTANT:{% endif %}"
)


def byte_level_bpe() -> Any:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    split = tokenizers.Regex(r"\p{N}{1,3}|[^\s\p{L}\p{N}]+|\s+(?!\S)| ?\p{L}+|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(split, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder, tokenizer.post_processor = decoders.ByteLevel(), processors.ByteLevel(trim_offsets=False)
    names = ["<|end|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        base_texts(), trainers.BpeTrainer(vocab_size=700, special_tokens=names, initial_alphabet=alphabet)
    )
    found = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|end|>")
    found.add_tokens([tokenizers.AddedToken("<tool>", special=False, normalized=False), "grüße"])
    found.chat_template = TEMPLATE
    return found


def byte_fallback_bpe() -> Any:
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    names = ["<unk>", "<s>", "</s>", "<pad>", *(f"<0x{i:02X}>" for i in range(256))]
    tokenizer.train_from_iterator(
        base_texts()[:20], trainers.BpeTrainer(vocab_size=500, special_tokens=names, limit_alphabet=60)
    )
    tokenizer.post_processor = _template("<s> $A", "<s> $A <s>:1 $B:1", tokenizer, ["<s>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL, padding_side="left")


def word_piece() -> Any:
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=40))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    names = list(BERT.values())
    tokenizer.train_from_iterator(base_texts(), trainers.WordPieceTrainer(vocab_size=600, special_tokens=names))
    ids = [(name, tokenizer.token_to_id(name)) for name in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = processors.BertProcessing(*ids)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **BERT, clean_up_tokenization_spaces=True)


def unigram() -> Any:
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    names = ["<pad>", "</s>", "<unk>", "<extra_id_0>", "<extra_id_1>"]
    trainer = trainers.UnigramTrainer(vocab_size=500, special_tokens=names, unk_token="<unk>")
    tokenizer.train_from_iterator(base_texts(), trainer)
    tokenizer.post_processor = _template("$A </s>", "$A </s> $B </s>", tokenizer, ["</s>"])
    named = {name: SPECIAL[name] for name in ("eos_token", "unk_token", "pad_token")}
    extra = [tokenizers.AddedToken("<extra_id_0>", lstrip=True, rstrip=True, special=True), "<extra_id_1>"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named, extra_special_tokens=extra)


def bpe() -> Any:
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Whitespace(), decoders.BPEDecoder("</w>")
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=list(SPECIAL.values()), end_of_word_suffix="</w>")
    tokenizer.train_from_iterator(base_texts(), trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL, truncation_side="left")


KINDS: Mapping[str, Callable[[], Any]] = {
    "byte_level_bpe": byte_level_bpe, "byte_fallback_bpe": byte_fallback_bpe, "word_piece": word_piece,
    "unigram": unigram, "bpe": bpe,
}  # fmt: skip


def _template(single: str, pair: str, tokenizer: Any, names: list[str]) -> Any:
    tokens = [(name, tokenizer.token_to_id(name)) for name in names]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=tokens)
