"""The file that renders chats: the same environment of Jinja that transformers gives a template."""


def write_chat_template() -> str:
    """The text of the file, the same for every model."""
    return _TEXT


_TEXT = '''import dataclasses
import datetime
import functools
import json
from collections.abc import Mapping

import numpy as np

try:
    import jinja2
    import jinja2.ext
    import jinja2.sandbox
except ImportError:
    jinja2 = None

CONTINUE_TAG = "CONTINUE_FINAL_MESSAGE_TAG "
# Names a message's reasoning is passed under; templates read the first.
REASONING = ("reasoning_content", "thinking", "reasoning")
# What transformers takes beside the variables of a template, and does with
# the token ids; it is not done here.
NO_VARIABLES = {"padding", "truncation", "max_length", "return_tensors"}
NO_VARIABLES |= {"return_dict", "return_assistant_tokens_mask"}
NO_VARIABLES |= {"sanitize_control_tokens", "tokenizer_kwargs"}


def render_chat(
    conversation,
    chat_template,
    templates=None,
    tools=None,
    documents=None,
    add_generation_prompt=False,
    continue_final_message=False,
    **kwargs,
):
    """Render a chat, or several, with a Jinja template.

    Args:
        conversation: list of messages, or list of such lists.
        chat_template: string, the name of one of `templates`, or all of them.
        templates: dict of strings by name, or `None`.
        tools: list of JSON schemas.
        documents: list of dicts.
        add_generation_prompt: bool. Whether the text ends with what an answer
            begins with.
        continue_final_message: bool, or string. Whether the text ends within
            the last message; a string names the field of it, which is
            `"content"` otherwise.
        **kwargs: Further variables of the template.
    """
    if jinja2 is None:
        raise ImportError(
            "Rendering a chat requires the `jinja2` package. Please install "
            "it with `pip install jinja2`."
        )
    if add_generation_prompt and continue_final_message:
        raise ValueError(
            "A text that ends within the last message does not go on with "
            "an answer: `add_generation_prompt` and `continue_final_message` "
            "exclude each other."
        )
    if len(conversation) == 0:
        raise ValueError("The conversation is empty.")
    check_options(tools, documents, kwargs)
    template = choose_template(chat_template, templates, tools)
    batched = isinstance(conversation[0], (list, tuple))
    variables = plain(kwargs)
    variables |= {
        "tools": plain(tools),
        "documents": plain(documents),
        "add_generation_prompt": add_generation_prompt,
    }
    texts = [
        render(chat, template, continue_final_message, variables)
        for chat in (conversation if batched else [conversation])
    ]
    return texts if batched else texts[0]


def check_options(tools, documents, kwargs):
    """Refuse what would be rendered as something else than it is."""
    for name, values in (("tools", tools), ("documents", documents)):
        for value in values or ():
            if not isinstance(value, dict):
                raise TypeError(
                    f"`{name}` must be a list of dicts, a tool as its JSON "
                    f"schema. Received: {value!r}"
                )
    unknown = sorted(NO_VARIABLES.intersection(kwargs))
    if unknown:
        raise TypeError(
            "These options are not supported, and a template has no such "
            f"variables: {unknown}"
        )


def choose_template(chat_template, templates, tools):
    """The template that is meant, of one or several."""
    if isinstance(chat_template, str):
        return (
            templates.get(chat_template, chat_template)
            if isinstance(templates, dict)
            else chat_template
        )
    if not chat_template:
        raise ValueError("The tokenizer has no chat template.")
    if tools is not None and "tool_use" in chat_template:
        return chat_template["tool_use"]
    if "default" not in chat_template:
        raise ValueError(
            f"Name one of the chat templates: {sorted(chat_template)}"
        )
    return chat_template["default"]


def render(chat, template, continue_final_message, variables):
    """The text of one chat."""
    chat = [
        {key: value for key, value in message.items() if value is not None}
        for message in chat
    ]
    chat = [with_reasoning(message) for message in plain(chat)]
    if not continue_final_message:
        return compiled(template).render(messages=chat, **variables)
    is_named = isinstance(continue_final_message, str)
    field = continue_final_message if is_named else "content"
    final = mark_end(chat[-1], field, template)
    text = compiled(template).render(messages=chat, **variables)
    if final.strip() not in text or CONTINUE_TAG.strip() not in text:
        raise ValueError("The template leaves out the end of the last message.")
    end = text.rindex(CONTINUE_TAG.strip())
    # Without the space behind it, the template strips what it is given.
    exact = text[end : end + len(CONTINUE_TAG)] == CONTINUE_TAG
    return text[:end] if exact else text[:end].rstrip()


def mark_end(message, field, template):
    """Mark where a field of a message ends; returns its text."""
    content = message.get(field)
    if content is None:
        raise ValueError(f"The last message has no {field!r} to continue.")
    fields = [field]
    if field in REASONING:
        # It stands under several names, and the template reads any of them.
        fields = [name for name in REASONING if message.get(name) == content]
    if not any(name in template for name in fields):
        raise ValueError(f"The template does not read {field!r}.")
    if isinstance(content, str):
        message.update({name: content + CONTINUE_TAG for name in fields})
        return content
    for block in reversed(content):
        if "text" in block:
            text = block["text"]
            block["text"] = text + CONTINUE_TAG
            return text
    raise ValueError("The last message has no text to continue.")


def with_reasoning(message):
    """The message with its reasoning under the names that templates read."""
    found = [message[key] for key in REASONING if message.get(key) is not None]
    if not found:
        return message
    return {"thinking": found[0], **message, "reasoning_content": found[0]}


def plain(value):
    """Plain data alone: a template comes from elsewhere and calls nothing."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    if isinstance(value, np.generic):
        return plain(value.item())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: plain(getattr(value, field.name)) for field in fields}
    if callable(getattr(value, "model_dump", None)):
        return plain(value.model_dump())
    return f"<{type(value).__name__}>"


@functools.lru_cache
def compiled(template):
    """The template in a sandbox, with what templates are used to find."""

    class Generation(jinja2.ext.Extension):
        """Marks what the model says; it is rendered as it stands."""

        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(
                ["name:endgeneration"], drop_needle=True
            )
            call = self.call_method("_generation")
            return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

        def _generation(self, caller):
            return caller()

    class Namespace(jinja2.utils.Namespace):
        """A namespace without access to what Python keeps to itself."""

        def __init__(*args, **kwargs):
            self, *args = args
            attributes = dict(*args, **kwargs)
            for name in attributes:
                Namespace._check(name)
            jinja2.utils.Namespace.__init__(self, attributes)

        def __setitem__(self, name, value):
            Namespace._check(name)
            jinja2.utils.Namespace.__setitem__(self, name, value)

        @staticmethod
        def _check(name):
            if isinstance(name, str) and name.startswith("_"):
                raise jinja2.exceptions.SecurityError(
                    f"A template may not set {name!r}."
                )

    class Dict:
        """`dict` without its attributes."""

        def __call__(self, *args, **kwargs):
            return dict(*args, **kwargs)

        def fromkeys(self, *args, **kwargs):
            return dict.fromkeys(*args, **kwargs)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(
        x, ensure_ascii=False, indent=None, separators=None, sort_keys=False
    ):
        return json.dumps(
            x,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    def strftime_now(format):
        return datetime.datetime.now().strftime(format)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": strftime_now,
        "dict": Dict(),
        "namespace": Namespace,
    }
    return environment.from_string(template)
'''
