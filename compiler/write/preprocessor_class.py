"""The file of a preprocessor: from text to the inputs of the model, as the model's own tokenizer packs it."""

from hf2khc.write.layer_class import register
from hf2khc.write.names import snake
from hf2khc.write.plan import Plan
from hf2khc.write.source_text import docstring, entry, fitted, indent, paragraph
from hf2khc.write.tokenizer_class import tokenizer_class, tokenizer_module

CAUSAL_LM, SEQ_2_SEQ_LM = "CausalLMPreprocessor", "Seq2SeqLMPreprocessor"
MASKED_LM, TEXT_CLASSIFIER = "MaskedLMPreprocessor", "TextClassifierPreprocessor"
_WHAT = {
    CAUSAL_LM: "{} causal language modeling preprocessor.",
    SEQ_2_SEQ_LM: "{} seq2seq language modeling preprocessor.",
    MASKED_LM: "{} masked language modeling preprocessor.",
    TEXT_CLASSIFIER: "{} preprocessor for classification and for embeddings.",
}


def preprocessor_class(plan: Plan) -> str:
    """The name of the preprocessor's class."""
    return f"{plan.prefix}{plan.preprocessor}"


def preprocessor_module(plan: Plan) -> str:
    """The name of the preprocessor's file, without `.py`."""
    return f"{plan.package}_{snake(plan.preprocessor)}"


def write_preprocessor(plan: Plan) -> str:
    """The unformatted text of the preprocessor's file."""
    assert plan.text is not None
    base = plan.text.preprocessor
    imports = ["import keras", "import numpy as np"]
    imports += ["from keras_hub.layers import MaskedLMMaskGenerator", f"from keras_hub.models import {base}"]
    imports += [f"from {plan.package}.{plan.package}_backbone import {plan.prefix}Backbone"]
    imports += [f"from {plan.package}.{tokenizer_module(plan)} import {tokenizer_class(plan)}"]
    body = [*docstring(_docs(plan)), "", f"backbone_cls = {plan.prefix}Backbone"]
    body += [f"tokenizer_cls = {tokenizer_class(plan)}", "", *_BODIES[base](plan)]
    head = [register(plan.package), f"class {preprocessor_class(plan)}({base}):"]
    return "\n".join([*imports, "", "", *head, *indent(body)]) + "\n"


def _docs(plan: Plan) -> list[str]:
    assert plan.text is not None
    lines = paragraph(_WHAT[plan.text.preprocessor].format(plan.prefix)) + [""]
    lines += paragraph(
        "Text is packed as the model's `tokenizer.json` says, its special tokens around the text; what is too long is "
        "cut."
    )
    lines += ["", "Args:", *entry("tokenizer", f"A `{tokenizer_class(plan)}` instance.")]
    for name, doc in _ARGUMENT_DOCS[plan.text.preprocessor].items():
        lines += entry(name, doc)
    return lines


_LENGTH = "int. The length of the packed inputs."
_TRUNCATE = (
    'string. Which one of two texts is cut first, `"longest_first"`, `"only_first"` or `"only_second"`. Defaults to '
    '`"longest_first"`.'
)
_ARGUMENT_DOCS = {
    CAUSAL_LM: {
        "sequence_length": _LENGTH,
        "add_start_token": "bool. Whether to add the tokens that the model wants around a text.",
        "add_end_token": "bool. Whether texts to train on end with the end token.",
    },
    SEQ_2_SEQ_LM: {
        "decoder_start_token_ids": "list of ints. What every answer begins with.",
        "encoder_sequence_length": "int. The length of the packed inputs of the encoder.",
        "decoder_sequence_length": "int. The length of the packed inputs of the decoder.",
    },
    TEXT_CLASSIFIER: {"sequence_length": _LENGTH, "truncate": _TRUNCATE},
    MASKED_LM: {
        "sequence_length": _LENGTH,
        "truncate": _TRUNCATE,
        "mask_selection_rate": "float. The share of the tokens that are chosen.",
        "mask_selection_length": "int. The most tokens of a text that are chosen.",
        "mask_token_rate": "float. The share of the chosen that become the mask token.",
        "random_token_rate": "float. The share of the chosen that become a random one.",
    },
}


def _names(plan: Plan) -> list[str]:
    return [name for name, _ in plan.inputs.values()]


def _inputs(plan: Plan, source: str, part: str = "") -> list[str]:
    """`x` as the inputs of the model, out of what was packed."""
    entries = [fitted(f'"{name}": ', f'{source}["{name}"]{part}', 12) + "," for name in _names(plan)]
    return ["x = {", *indent(entries), "}"]


def _causal_lm(plan: Plan) -> list[str]:
    lines = [*_NO_BUILD, "", *_CAUSAL_CALL, *indent(_inputs(plan, "packed", "[..., :-1]")), *_CAUSAL_TARGETS]
    returned = [f'"{name}": packed["{name}"],' for name in _names(plan)]
    return [*lines, "", *_CAUSAL_GENERATE, "    return {", *indent(returned, 2), "    }"]


def _text_classifier(plan: Plan) -> list[str]:
    return [*_PAIR_INIT, "", *_NO_BUILD, "", *_PAIR_CALL, *indent([*_inputs(plan, "packed"), _PACKED])]


def _masked_lm(plan: Plan) -> list[str]:
    inputs = indent(_inputs(plan, "packed"))
    return [*_PAIR_INIT, "", *_MASKER, "", *_PAIR_CALL, *_MASK, *inputs, f"    {_PACKED}", "", *_WEIGHTS]


def _seq_2_seq_lm(plan: Plan) -> list[str]:
    return [*_SEQ_INIT, "", *_NO_BUILD, "", *_SEQ_METHODS]


_BODIES = {
    CAUSAL_LM: _causal_lm, SEQ_2_SEQ_LM: _seq_2_seq_lm, MASKED_LM: _masked_lm, TEXT_CLASSIFIER: _text_classifier,
}  # fmt: skip
_PACKED = "return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)"
_NO_BUILD = """
def build(self, input_shape):
    self.built = True
""".strip().splitlines()
_CAUSAL_CALL = """
def call(self, x, y=None, sample_weight=None, sequence_length=None):
    sequence_length = sequence_length or self.sequence_length
    # Pack one extra token to account for the truncation below.
    packed = self.tokenizer.pack(
        x,
        sequence_length=sequence_length + 1,
        add_special_tokens=self.add_start_token,
        add_end_token=self.add_end_token,
        padding_side="right",
    )
""".strip().splitlines()
_CAUSAL_TARGETS = f"""
    # Target `y` will be the next token.
    y = packed["token_ids"][..., 1:]
    sample_weight = packed["padding_mask"][..., 1:]
    {_PACKED}
""".strip("\n").splitlines()
_CAUSAL_GENERATE = """
def generate_preprocess(self, x, sequence_length=None):
    packed = self.tokenizer.pack(
        x,
        sequence_length=sequence_length or self.sequence_length,
        add_special_tokens=self.add_start_token,
        padding_side="right",
    )
""".strip().splitlines()
_PAIR_INIT = """
def __init__(
    self,
    tokenizer,
    sequence_length=512,
    truncate="longest_first",
    **kwargs,
):
    super().__init__(
        tokenizer,
        sequence_length=sequence_length,
        truncate=truncate,
        **kwargs,
    )
""".strip().splitlines()
_PAIR_CALL = """
def call(self, x, y=None, sample_weight=None):
    x = x if isinstance(x, tuple) else (x,)
    packed = self.tokenizer.pack(
        *x, sequence_length=self.sequence_length, truncate=self.truncate
    )
""".strip().splitlines()
_MASKER = """
def build(self, input_shape):
    self.masker = MaskedLMMaskGenerator(
        mask_selection_rate=self.mask_selection_rate,
        mask_selection_length=self.mask_selection_length,
        mask_token_rate=self.mask_token_rate,
        random_token_rate=self.random_token_rate,
        vocabulary_size=self.tokenizer.vocabulary_size(),
        mask_token_id=self.tokenizer.mask_token_id,
        unselectable_token_ids=self.tokenizer.special_token_ids,
    )
    self.built = True
""".strip().splitlines()
_MASK = """
    masked = self.masker(packed["token_ids"])
    # The model gives logits of all tokens; those that were masked count.
    y, sample_weight = packed["token_ids"], self._weights(masked)
    packed["token_ids"] = masked["token_ids"]
""".strip("\n").splitlines()
_WEIGHTS = '''
def _weights(self, masked):
    """The weight of every token, from those of the masked ones."""
    positions, weights = masked["mask_positions"], masked["mask_weights"]
    if self._use_tf_workflow():
        import tensorflow as tf

        hits = tf.one_hot(positions, self.sequence_length)
        return tf.reduce_sum(hits * weights[..., None], axis=-2)
    hits = keras.ops.one_hot(positions, self.sequence_length)
    return keras.ops.sum(hits * weights[..., None], axis=-2)
'''.strip().splitlines()
_SEQ_INIT = """
def __init__(
    self,
    tokenizer,
    decoder_start_token_ids=(),
    encoder_sequence_length=1024,
    decoder_sequence_length=1024,
    **kwargs,
):
    super().__init__(
        tokenizer,
        encoder_sequence_length=encoder_sequence_length,
        decoder_sequence_length=decoder_sequence_length,
        **kwargs,
    )
    self.decoder_start_token_ids = list(decoder_start_token_ids)
""".strip().splitlines()
_SEQ_METHODS = """
def call(
    self,
    x,
    y=None,
    sample_weight=None,
    *,
    encoder_sequence_length=None,
    decoder_sequence_length=None,
    sequence_length=None,
):
    encoder = self._pack_encoder(x["encoder_text"], encoder_sequence_length)
    length = decoder_sequence_length or sequence_length
    # An answer to train on begins with the first start token alone: what
    # follows is among the special tokens that the text gets.
    decoder = self.tokenizer.pack(
        x["decoder_text"],
        sequence_length=(length or self.decoder_sequence_length) + 1,
        prefix=self.decoder_start_token_ids[:1],
        padding_side="right",
    )
    x = {
        **encoder,
        "decoder_token_ids": decoder["token_ids"][..., :-1],
        "decoder_padding_mask": decoder["padding_mask"][..., :-1],
    }
    # Target `y` will be the next token.
    y = decoder["token_ids"][..., 1:]
    sample_weight = decoder["padding_mask"][..., 1:]
    return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)

def _pack_encoder(self, text, sequence_length):
    packed = self.tokenizer.pack(
        text, sequence_length=sequence_length or self.encoder_sequence_length
    )
    return {
        "encoder_token_ids": packed["token_ids"],
        "encoder_padding_mask": packed["padding_mask"],
    }

def generate_preprocess(
    self,
    x,
    *,
    encoder_sequence_length=None,
    decoder_sequence_length=None,
    sequence_length=None,
):
    if not isinstance(x, dict):
        x = {"encoder_text": x, "decoder_text": self._empty_decoder_text(x)}
    encoder = self._pack_encoder(x["encoder_text"], encoder_sequence_length)
    length = decoder_sequence_length or sequence_length
    decoder = self.tokenizer.pack(
        x["decoder_text"],
        sequence_length=length or self.decoder_sequence_length,
        add_special_tokens=False,
        prefix=self.decoder_start_token_ids,
        padding_side="right",
    )
    return {
        **encoder,
        "decoder_token_ids": decoder["token_ids"],
        "decoder_padding_mask": decoder["padding_mask"],
    }

def generate_postprocess(self, x):
    token_ids = keras.ops.convert_to_numpy(x["decoder_token_ids"])
    mask = keras.ops.convert_to_numpy(x["decoder_padding_mask"])
    special = self.tokenizer.special_token_ids
    keep = mask.astype("bool") & ~np.isin(token_ids, special)
    if token_ids.ndim == 1:
        return self.tokenizer.detokenize(token_ids[keep])
    rows = [row[kept].tolist() for row, kept in zip(token_ids, keep)]
    return self.tokenizer.detokenize(rows)

def get_config(self):
    config = super().get_config()
    config.update(
        {
            "decoder_start_token_ids": self.decoder_start_token_ids,
            "encoder_sequence_length": self.encoder_sequence_length,
            "decoder_sequence_length": self.decoder_sequence_length,
        }
    )
    return config
""".strip().splitlines()
