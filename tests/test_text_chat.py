"""Chats are rendered as transformers renders them."""

from pathlib import Path
from typing import Any

import pytest
from text_packages import text_package
from text_vocabularies import TEMPLATE, byte_fallback_bpe, byte_level_bpe

TOOLS = [{"type": "function", "function": {"name": "f", "description": "<ä>", "parameters": {"x": [1, None]}}}]
CHATS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": " Hello "}],
    [{"role": "system", "content": "Be brief.", "name": None}, {"role": "user", "content": "größe?"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b  ", "reasoning": "because"}],
]
RICH = """{%- set ns = namespace(n=0) %}
{%- for m in messages %}
    {%- set ns.n = ns.n + 1 %}
    {%- if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}
    {%- if loop.last and m.content is string and m.content == 'stop' %}{% break %}{% endif %}
    {%- generation %}[{{ ns.n }} {{ m['role'] }}] {{ m.content }}{{ bos_token }}{% endgeneration %}
    {%- if m.reasoning_content %} <{{ m.reasoning_content }}>{% endif %}
{% endfor %}
{%- if tools %}{{ tools | tojson(indent=2) }}{{ dict(a=1) | tojson }}{% endif %}
{%- if documents %}{{ documents[0].title }}{% endif %}
{%- if add_generation_prompt %}{{ '[assistant]' + (mood or '') }}{% endif %}"""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    theirs = byte_fallback_bpe()
    theirs.chat_template = {"default": RICH, "tool_use": "tools: {{ tools | length }}", "simple": TEMPLATE}
    module = text_package(tmp_path_factory.mktemp("chat"), "text_chat", theirs)
    return theirs, module.LlamaTokenizer(**module.arguments)


OPTIONS: list[dict[str, Any]] = [
    {}, {"add_generation_prompt": True, "mood": "!"}, {"chat_template": "simple"}, {"tools": TOOLS},
    {"chat_template": RICH, "tools": TOOLS, "documents": [{"title": "T", "text": "t"}]}, {"bos_token": "<other>"},
    {"chat_template": "{{ messages[0]['content'] }}|{{ eos_token }}"}, {"continue_final_message": True},
    {"continue_final_message": True, "chat_template": "simple"},
    {"continue_final_message": "content", "chat_template": RICH},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
def test_chats(both: tuple[Any, Any], options: dict[str, Any]) -> None:
    theirs, ours = both
    for chat in (*CHATS, CHATS):
        expected = theirs.apply_chat_template(chat, tokenize=False, **options)
        assert ours.apply_chat_template(chat, **options) == expected
        ids = theirs.apply_chat_template(chat, tokenize=True, return_dict=False, **options)
        assert ours.apply_chat_template(chat, tokenize=True, **options) == ids


THOUGHTS = "{% for m in messages %}{{ m.role }} <{{ m.thinking }}> {{ m.content }}{% endfor %}"


@pytest.mark.parametrize("field", ["reasoning_content", "thinking", "reasoning"])
def test_a_chat_ends_within_another_field(both: tuple[Any, Any], field: str) -> None:
    theirs, ours = both
    options = {"continue_final_message": field, "chat_template": THOUGHTS}
    expected = theirs.apply_chat_template(CHATS[2], tokenize=False, **options)
    assert ours.apply_chat_template(CHATS[2], **options) == expected and expected.endswith("<because")
    for wrong in ({"continue_final_message": "mood"}, {"chat_template": "{{ messages[0].role }}"}):
        with pytest.raises(ValueError, match="to continue|does not read"):
            ours.apply_chat_template(CHATS[2], **{**options, **wrong})


class Part:
    """What pydantic's models offer."""

    def model_dump(self) -> dict[str, Any]:
        return {"type": "text", "text": "hello"}


def test_models_in_a_message_are_plain_data(both: tuple[Any, Any]) -> None:
    theirs, ours = both
    chat = [{"role": "user", "content": [Part()]}]
    template = "{{ messages[0].content[0].text }}"
    expected = theirs.apply_chat_template(chat, chat_template=template, tokenize=False)
    assert ours.apply_chat_template(chat, chat_template=template) == expected == "hello"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"tools": [len]}, "`tools` must be"), ({"documents": ["text"]}, "`documents` must be"),
        ({"sanitize_control_tokens": True}, "sanitize_control_tokens"), ({"return_tensors": "pt"}, "return_tensors"),
    ],
)  # fmt: skip
def test_what_would_be_rendered_otherwise_is_refused(
    both: tuple[Any, Any], options: dict[str, Any], named: str
) -> None:
    with pytest.raises(TypeError, match=named):
        both[1].apply_chat_template(CHATS[0], **options)


def test_what_a_template_may_not_do(both: tuple[Any, Any]) -> None:
    _, ours = both
    for template in ("{{ messages.__class__.__mro__ }}", "{{ messages.append(1) }}", "{% set ns = namespace(_a=1) %}"):
        with pytest.raises(Exception, match="safe|may not"):
            ours.apply_chat_template(CHATS[0], chat_template=template)
    with pytest.raises(Exception, match="no tools"):
        ours.apply_chat_template([{"role": "tool", "content": ""}])
    with pytest.raises(ValueError, match="empty"):
        ours.apply_chat_template([])


def test_without_a_template_nothing_is_printed(tmp_path: Path) -> None:
    theirs = byte_level_bpe()
    theirs.chat_template = None
    module = text_package(tmp_path, "text_chatless", theirs)
    assert not hasattr(module.LlamaTokenizer, "apply_chat_template")
    assert not (tmp_path / "text_chatless" / "text_chatless_chat_template.py").exists()
