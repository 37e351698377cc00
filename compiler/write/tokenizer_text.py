"""What every printed tokenizer has in common: text between the lines that depend on the model."""

IMPORTS = """
import os
import threading

import keras
import numpy as np
from keras_hub.tokenizers import Tokenizer

try:
    import tokenizers
except ImportError:
    tokenizers = None
""".strip().splitlines()
CONSTANTS = """
TOKENIZER_FILENAME = "tokenizer.json"
# Truncation is a setting of the tokenizer, so one call has it at a time.
LOCK = threading.Lock()
SPACES = {" .": ".", " ?": "?", " !": "!", " ,": ",", " ' ": "'", " n't": "n't"}
SPACES |= {" 'm": "'m", " 's": "'s", " 've": "'ve", " 're": "'re"}


def to_python(x):
    \"\"\"Nested lists of strings or ints, of tensors and arrays too.\"\"\"
    if isinstance(x, (list, tuple)):
        return [to_python(value) for value in x]
    if isinstance(x, bytes):
        return x.decode("utf-8")
    if hasattr(x, "to_list"):
        return to_python(x.to_list())
    if keras.ops.is_tensor(x):
        x = keras.ops.convert_to_numpy(x)
    elif hasattr(x, "numpy"):
        x = x.numpy()
    return to_python(x.tolist()) if isinstance(x, (np.ndarray, np.generic)) else x
""".strip().splitlines()
METHODS = '''
def set_tokenizer(self, tokenizer):
    """Set the tokenizer to a file or to the content of one."""
    tokens = ("start_token", "end_token", "pad_token", "mask_token")
    self._tokenizer = None
    for name in tokens:
        setattr(self, f"{name}_id", None)
    if tokenizer is None:
        return
    if tokenizers is None:
        raise ImportError(
            f"{self.__class__.__name__} requires the `tokenizers` package. "
            "Please install it with `pip install tokenizers`."
        )
    tokenizer = os.fspath(tokenizer)
    if not tokenizer.lstrip().startswith("{"):
        with open(tokenizer, encoding="utf-8") as file:
            tokenizer = file.read()
    self._tokenizer = tokenizers.Tokenizer.from_str(tokenizer)
    self._tokenizer.no_padding()
    self._tokenizer.no_truncation()
    self._tokenizer.encode_special_tokens = self.split_special_tokens
    for name in tokens:
        token = getattr(self, name)
        setattr(self, f"{name}_id", self.token_to_id(token) if token else None)

def save_assets(self, dir_path):
    tokenizer = self._backend()
    with LOCK:
        tokenizer.no_truncation()
        tokenizer.save(os.path.join(dir_path, TOKENIZER_FILENAME))

def load_assets(self, dir_path):
    self.set_tokenizer(os.path.join(dir_path, TOKENIZER_FILENAME))

def _backend(self):
    if self._tokenizer is None:
        raise ValueError(
            f"{self.__class__.__name__} has no vocabulary yet. Pass "
            "`tokenizer`, or load it with `from_preset()`."
        )
    return self._tokenizer

def get_vocabulary(self):
    """Get the tokens, ordered by their ids."""
    vocabulary = self._backend().get_vocab(with_added_tokens=True)
    return sorted(vocabulary, key=vocabulary.get)

def vocabulary_size(self):
    """Get the size of the token id space."""
    vocabulary = self._backend().get_vocab(with_added_tokens=True)
    return max(vocabulary.values(), default=-1) + 1

def id_to_token(self, id):
    """Convert an integer id to a string token."""
    token = self._backend().id_to_token(int(id))
    if token is None:
        raise ValueError(f"`id` is no id of a token. Received: {id}")
    return token

def token_to_id(self, token):
    """Convert a string token to an integer id."""
    id = self._backend().token_to_id(token)
    if id is None:
        raise ValueError(f"`token` is not in the vocabulary: {token!r}")
    return id

@property
def special_tokens(self):
    """The tokens that are no text."""
    added = self._backend().get_added_tokens_decoder().values()
    return [token.content for token in added if token.special]

@property
def special_token_ids(self):
    """The ids of the tokens that are no text."""
    added = self._backend().get_added_tokens_decoder().items()
    return [id for id, token in added if token.special]

def call(self, inputs, *args, training=None, **kwargs):
    return self.tokenize(inputs, *args, **kwargs)

def tokenize(self, inputs):
    """Convert text to token ids, without any token around it.

    Args:
        inputs: string, or list or tensor of strings.

    Returns:
        A list of ints for each text. In a `tf.data` pipeline, a tensor for
        one text and a ragged one for several.
    """
    if self._use_tf_workflow():
        return self._tokenize_tf(inputs)
    texts = to_python(inputs)
    if isinstance(texts, str):
        return self._encode([texts])[0]
    if texts and isinstance(texts[0], list):
        return [self.tokenize(row) for row in texts]
    return self._encode(texts)

def _encode(self, texts):
    tokenizer = self._backend()
    with LOCK:
        tokenizer.no_truncation()
        encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [encoding.ids for encoding in encodings]

def _tokenize_tf(self, inputs):
    import tensorflow as tf

    def encode(texts):
        rows = self._encode([text.decode("utf-8") for text in texts])
        values = [id for row in rows for id in row]
        lengths = [len(row) for row in rows]
        return np.array(values, "int32"), np.array(lengths, "int32")

    inputs = tf.convert_to_tensor(inputs)
    flat = tf.reshape(inputs, [-1])
    values, lengths = tf.numpy_function(encode, [flat], [tf.int32, tf.int32])
    values.set_shape([None])
    lengths.set_shape([None])
    if inputs.shape.rank == 0:
        return values
    if inputs.shape.rank > 1:
        raise ValueError("In a `tf.data` pipeline, texts come one by one or in batches.")
    return tf.RaggedTensor.from_row_lengths(values, lengths)

def detokenize(self, inputs):
    """Convert token ids to text, special tokens among it.

    Args:
        inputs: list or tensor of ints, or several of them.

    Returns:
        A string, or a list of strings.
    """
    if not self.decodes:
        raise NotImplementedError(
            f"{self.__class__.__name__} cannot detokenize: the model's own "
            "tokenizer does so with code that is not in its file."
        )
    if self._use_tf_workflow():
        return self._detokenize_tf(inputs)
    rows = to_python(inputs)
    if isinstance(rows, int):
        rows = [rows]
    if rows and isinstance(rows[0], list):
        return [self.detokenize(row) for row in rows]
    text = self._backend().decode(rows, skip_special_tokens=False)
    if self.clean_up:
        for spaced, text_without in SPACES.items():
            text = text.replace(spaced, text_without)
    return text

def _detokenize_tf(self, inputs):
    import tensorflow as tf

    def decode(values, lengths):
        ends = np.cumsum(lengths)
        rows = [values[end - n : end].tolist() for end, n in zip(ends, lengths)]
        return np.array([self.detokenize(row).encode() for row in rows], object)

    if isinstance(inputs, tf.RaggedTensor):
        values, lengths = inputs.values, inputs.row_lengths()
        return tf.numpy_function(decode, [values, lengths], tf.string)
    inputs = tf.convert_to_tensor(inputs)
    width = tf.shape(inputs)[-1:]
    lengths = tf.tile(width, [tf.size(inputs) // tf.maximum(width[0], 1)])
    values = tf.reshape(inputs, [-1])
    texts = tf.numpy_function(decode, [values, lengths], tf.string)
    return tf.reshape(texts, tf.shape(inputs)[:-1])

def pack(
    self,
    inputs,
    pairs=None,
    sequence_length=512,
    add_special_tokens=True,
    add_end_token=False,
    prefix=(),
    padding_side=None,
    truncate="longest_first",
):
    """Convert text to token ids of a fixed length.

    Args:
        inputs: string, or list or tensor of strings.
        pairs: the same for second texts, that follow the first ones.
        sequence_length: int. The length of the result.
        add_special_tokens: bool. Whether to add the tokens that the model
            wants around a text.
        add_end_token: bool. Whether to end with the end token in any case.
        prefix: list of ints. Token ids in front of everything.
        padding_side: string. Defaults to the tokenizer's.
        truncate: string. Which one of two texts is cut first,
            `"longest_first"`, `"only_first"` or `"only_second"`.

    Returns:
        A dictionary of the `token_ids`, the `padding_mask` and the
        `segment_ids`, int tensors.
    """
    names = ("token_ids", "padding_mask", "segment_ids")

    def pack_rows(texts, pairs):
        rows = self._pack_rows(
            to_python(texts),
            to_python(pairs),
            sequence_length,
            add_special_tokens,
            add_end_token,
            list(prefix),
            padding_side or self.padding_side,
            truncate,
        )
        return tuple(rows)

    if self._use_tf_workflow():
        rows, rank = self._pack_tf(pack_rows, inputs, pairs)
        for row in rows:
            row.set_shape([None, sequence_length])
        return {n: x[0] if rank == 0 else x for n, x in zip(names, rows)}
    texts = to_python(inputs)
    single = isinstance(texts, str)
    pairs = [] if pairs is None else to_python(pairs)
    if single:
        texts, pairs = [texts], [pairs] if isinstance(pairs, str) else pairs
    rows = [x[0] if single else x for x in pack_rows(texts, pairs)]
    return {n: keras.ops.convert_to_tensor(x) for n, x in zip(names, rows)}

def _pack_tf(self, pack_rows, inputs, pairs):
    import tensorflow as tf

    inputs = tf.convert_to_tensor(inputs)
    pairs = tf.constant([], tf.string) if pairs is None else pairs
    texts = [tf.reshape(x, [-1]) for x in (inputs, pairs)]
    return tf.numpy_function(pack_rows, texts, [tf.int32] * 3), inputs.shape.rank

def _pack_rows(
    self,
    texts,
    pairs,
    sequence_length,
    add_special_tokens,
    add_end_token,
    prefix,
    padding_side,
    truncate,
):
    tokenizer = self._backend()
    around = len(prefix)
    if add_special_tokens:
        around += tokenizer.num_special_tokens_to_add(bool(pairs))
    if sequence_length < around:
        raise ValueError(
            f"`sequence_length` must be at least {around}, for the tokens "
            f"around a text. Received: {sequence_length}"
        )
    with LOCK:
        tokenizer.enable_truncation(
            sequence_length - len(prefix),
            strategy=truncate,
            direction=self.truncation_side,
        )
        encodings = tokenizer.encode_batch(
            list(zip(texts, pairs)) if pairs else texts,
            add_special_tokens=add_special_tokens,
        )
    shape = (len(texts), sequence_length)
    pad = self.pad_token_id or 0
    token_ids = np.full(shape, pad, "int32")
    padding_mask = np.zeros(shape, "int32")
    segment_ids = np.full(shape, self.pad_segment_id, "int32")
    for i, encoding in enumerate(encodings):
        ids = [*prefix, *encoding.ids]
        segments = [*[0] * len(prefix), *encoding.type_ids]
        if add_end_token and ids[-1:] != [self.end_token_id]:
            ids = [*ids[: sequence_length - 1], self.end_token_id]
            segments = [*segments, *(segments[-1:] or [0])][: len(ids)]
        left = padding_side == "left"
        place = slice(sequence_length - len(ids), None) if left else slice(len(ids))
        token_ids[i, place] = ids
        padding_mask[i, place] = 1
        segment_ids[i, place] = segments
    return token_ids, padding_mask, segment_ids
'''.strip().splitlines()
CHAT_METHOD = '''
def apply_chat_template(
    self,
    conversation,
    tools=None,
    documents=None,
    chat_template=None,
    add_generation_prompt=False,
    continue_final_message=False,
    tokenize=False,
    **kwargs,
):
    """Render a chat as the text that the model was trained on.

    The text has all special tokens in it: to generate from it, set
    `preprocessor.add_start_token = False`.

    Args:
        conversation: list of dicts with `"role"` and `"content"`, or several
            such lists.
        tools: list of JSON schemas of what the model may call.
        documents: list of dicts that the model may read.
        chat_template: string. Another template, or the name of one.
        add_generation_prompt: bool. Whether the text ends with what an answer
            begins with.
        continue_final_message: bool, or string. Whether the text ends within
            the last message; a string names the field of it, which is
            `"content"` otherwise.
        tokenize: bool. Whether token ids are returned.
        **kwargs: Further variables of the template.

    Returns:
        A string, or a list of them for several chats; token ids with
        `tokenize=True`.
    """
    text = render_chat(
        conversation,
        self.chat_template if chat_template is None else chat_template,
        templates=self.chat_template,
        tools=tools,
        documents=documents,
        add_generation_prompt=add_generation_prompt,
        continue_final_message=continue_final_message,
        **{**(self.chat_tokens or {}), **kwargs},
    )
    return self.tokenize(text) if tokenize else text
'''.strip().splitlines()
