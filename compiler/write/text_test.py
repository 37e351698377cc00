"""The test of a tokenizer, and of a preprocessor, that comes with a package."""

from hf2khc.write.plan import Plan
from hf2khc.write.preprocessor_class import SEQ_2_SEQ_LM, preprocessor_class, preprocessor_module
from hf2khc.write.tokenizer_class import tokenizer_class, tokenizer_module


def write_text_test(plan: Plan) -> str:
    """The unformatted text of `<package>_tokenizer_test.py`."""
    assert plan.text is not None
    name = tokenizer_class(plan)
    own = [f"from {plan.package}.{tokenizer_module(plan)} import {name}"]
    test = _TEST.replace("TOKENIZER", name)
    if plan.text.preprocessor:
        own.append(f"from {plan.package}.{preprocessor_module(plan)} import {preprocessor_class(plan)}")
        text = '{"encoder_text": TEXTS, "decoder_text": TEXTS}' if plan.text.preprocessor == SEQ_2_SEQ_LM else "TEXTS"
        names: dict[str, object] = {"encoder_sequence_length": 8, "decoder_sequence_length": 8}
        lengths: dict[str, object] = names if plan.text.preprocessor == SEQ_2_SEQ_LM else {"sequence_length": 8}
        lengths |= {"decoder_start_token_ids": [1]} if plan.text.preprocessor == SEQ_2_SEQ_LM else {}
        arguments = ", ".join(f"{key}={value}" for key, value in lengths.items())
        test += _PREPROCESSOR.replace("PREPROCESSOR", preprocessor_class(plan)).replace("INPUT", text)
        test = test.replace("ARGUMENTS", arguments)
    return _HEAD + "\n".join(own) + "\n" + test


_HEAD = """
import tempfile
import unittest

import keras
import tokenizers
from tokenizers import models, pre_tokenizers, processors, trainers

"""
_TEST = """
TEXTS = ["the quick brown fox", "the fox", ""]


def train():
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[BOS]", "[EOS]", "[UNK]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=60, special_tokens=special)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]",
        pair="[BOS] $A [EOS] $B:1 [EOS]:1",
        special_tokens=[("[BOS]", 1), ("[EOS]", 2)],
    )
    return tokenizer.to_str()


class TOKENIZERTest(unittest.TestCase):
    def setUp(self):
        self.tokenizer = TOKENIZER(
            tokenizer=train(),
            start_token="[BOS]",
            end_token="[EOS]",
            pad_token="[PAD]",
            mask_token="[MASK]",
        )

    def test_tokenizer_basics(self):
        rows = self.tokenizer(TEXTS)
        self.assertEqual(rows[0], self.tokenizer(TEXTS[0]))
        self.assertEqual(rows[2], [])
        tokens = [self.tokenizer.id_to_token(id) for id in rows[1]]
        self.assertEqual("".join(tokens).replace("##", ""), "thefox")
        self.assertEqual(self.tokenizer.detokenize(rows[1:]), ["the fox", ""])

    def test_pack(self):
        packed = self.tokenizer.pack(TEXTS, TEXTS, sequence_length=12)
        packed = {k: keras.ops.convert_to_numpy(x) for k, x in packed.items()}
        row = packed["token_ids"][2].tolist()
        self.assertEqual(row, [1, 2, 2, *[0] * 9])
        self.assertEqual(packed["padding_mask"][2].sum(), 3)
        self.assertEqual(packed["segment_ids"][2].tolist()[:3], [0, 0, 1])

    def test_saved_assets(self):
        with tempfile.TemporaryDirectory() as folder:
            self.tokenizer.save_assets(folder)
            copy = TOKENIZER.from_config(self.tokenizer.get_config())
            copy.load_assets(folder)
        self.assertEqual(copy(TEXTS), self.tokenizer(TEXTS))
        self.assertEqual(copy.get_config(), self.tokenizer.get_config())
"""
_PREPROCESSOR = """
    def test_preprocessor(self):
        preprocessor = PREPROCESSOR(self.tokenizer, ARGUMENTS)
        outputs = keras.tree.flatten(preprocessor(INPUT))
        for output in outputs:
            self.assertEqual(tuple(output.shape)[:2], (3, 8))
        copy = PREPROCESSOR.from_config(preprocessor.get_config())
        self.assertEqual(copy.get_config(), preprocessor.get_config())
"""
