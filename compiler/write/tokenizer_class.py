"""The file of a tokenizer: KerasHub's contract around the model's own `tokenizer.json`."""

from hf2khc.write.layer_class import register
from hf2khc.write.plan import Plan
from hf2khc.write.source_text import docstring, entry, indent, paragraph
from hf2khc.write.tokenizer_text import CHAT_METHOD, CONSTANTS, IMPORTS, METHODS

CHAT = "chat_template"
# What the constructor takes beside the file: name, its default where the model says nothing, and what it is.
ARGUMENTS: dict[str, tuple[object, str]] = {
    "start_token": (None, "string. The token that a text starts with."),
    "end_token": (None, "string. The token that a text ends with."),
    "pad_token": (None, "string. The token that fills up a text."),
    "mask_token": (None, "string. The token that stands for a masked one."),
    "padding_side": ("right", 'string. Where padding stands, `"right"` or `"left"`.'),
    "truncation_side": ("right", 'string. Where a text that is too long is cut, `"right"` or `"left"`.'),
    "pad_segment_id": (0, "int. The segment id of padding."),
    "split_special_tokens": (False, "bool. Whether special tokens in a text are split like any other text."),
    "decodes": (True, "bool. Whether the file says how token ids become text."),
    "clean_up": (False, "bool. Whether detokenizing removes spaces before punctuation."),
}
CHAT_ARGUMENTS: dict[str, tuple[object, str]] = {
    CHAT: (None, "string, or dict of strings by name. The Jinja template of a chat."),
    "chat_tokens": (None, "dict. Special tokens by the names that the template has for them."),
}


def tokenizer_class(plan: Plan) -> str:
    """The name of the tokenizer's class."""
    return f"{plan.prefix}Tokenizer"


def tokenizer_module(plan: Plan) -> str:
    """The name of the tokenizer's file, without `.py`."""
    return f"{plan.package}_tokenizer"


def chats(plan: Plan) -> bool:
    """Whether the model came with a chat template."""
    return plan.text is not None and bool(plan.text.arguments.get(CHAT))


def write_tokenizer(plan: Plan) -> str:
    """The unformatted text of the tokenizer's file."""
    arguments = ARGUMENTS | (CHAT_ARGUMENTS if chats(plan) else {})
    given = [f"{name}={default!r}" for name, (default, _) in arguments.items()]
    init = [
        f'def __init__(self, tokenizer=None, {", ".join(given)}, dtype="int32", **kwargs):',
        "    super().__init__(dtype=dtype, **kwargs)",
        *(f"    self.{name} = {name}" for name in arguments),
        "    self.file_assets = [TOKENIZER_FILENAME]",
        "    self.set_tokenizer(tokenizer)",
    ]
    config = [f'"{name}": self.{name},' for name in arguments]
    last = ["def get_config(self):", "    config = super().get_config()", "    config.update({", *indent(config, 2)]
    last += ["    })", "    return config"]
    methods = [init, METHODS, *([CHAT_METHOD] if chats(plan) else []), last]
    body = [*docstring(_docs(plan)), "", f"backbone_cls = {plan.prefix}Backbone"]
    for method in methods:
        body += ["", *method]
    own = [f"from {plan.package}.{plan.package}_backbone import {plan.prefix}Backbone"]
    own += [f"from {plan.package}.{chat_module(plan)} import render_chat"] if chats(plan) else []
    head = [*IMPORTS, "", *own, "", *CONSTANTS, "", ""]
    return (
        "\n".join([*head, register(plan.package), f"class {tokenizer_class(plan)}(Tokenizer):", *indent(body)]) + "\n"
    )


def chat_module(plan: Plan) -> str:
    """The name of the file that renders chats, without `.py`."""
    return f"{plan.package}_chat_template"


def _docs(plan: Plan) -> list[str]:
    name = tokenizer_class(plan)
    lines = paragraph(f"A {plan.prefix} tokenizer, which runs the model's own `tokenizer.json`.")
    lines += ["", *paragraph(_WHAT), ""]
    lines += ["Args:", *entry("tokenizer", _FILE_DOC)]
    for argument, (default, doc) in (ARGUMENTS | (CHAT_ARGUMENTS if chats(plan) else {})).items():
        lines += entry(argument, f"{doc} Defaults to `{default!r}`.".replace("'", '"'))
    lines += ["", "Example:", "```python", f'tokenizer = {name}.from_preset("./preset")', ""]
    lines += ["# Token ids of one text, or of several.", 'tokenizer("The quick brown fox.")']
    lines += ['tokenizer(["The quick brown fox.", "Call me Ishmael."])', "", "# And back."]
    return [*lines, 'tokenizer.detokenize(tokenizer("The quick brown fox."))', "```"]


_WHAT = (
    "That file holds all there is to know: how a text is normalized and split, the vocabulary, special tokens and what "
    "the model wants around a text. The `tokenizers` library reads it. Calling the tokenizer adds no token to those of "
    "the text; `pack()` does, as the model's own preprocessing."
)
_FILE_DOC = (
    "string. The path of a `tokenizer.json`, or its content. Defaults to `None`, for a tokenizer whose assets are "
    "loaded later."
)
