"""What a run asks of chats, beside what transformers makes of the same messages with the same template."""

from __future__ import annotations

from typing import Any

import pytest

from hybridflow.errors import ConfigError, DataError
from hybridflow.tasks import Example, build, chat_template, tasks
from hybridflow.tasks.chat_template import ChatForm
from hybridflow.tasks.encoder import Encoder
from tests.tasks.chat_templates import (
    ALWAYS_THINKS,
    CHATML,
    DEAF,
    GEMMA,
    QWEN3,
    QWEN35,
    TEMPLATES,
    build_chat_tokenizer,
)
from tests.tasks.test_encoder import Told

USER = {"role": "user", "content": "1+4?"}
SYSTEM = {"role": "system", "content": "Be short."}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
THOUGHT = "<think>\nfour and one\n</think>\n\n"


def build_told(template: str | None, *rows: Example, form: ChatForm | None = None, **options: Any) -> Told:
    task = Told(build_chat_tokenizer(template), *rows)
    task.chat_form = form or ChatForm()
    task.template_options = options
    return task


def prompt_of(task: Told) -> str:
    return task.tokenizer.decode(task.rows("warmup", [0]).ragged("prompt_ids")[0])


def both(template: str, answer: str, form: ChatForm | None = None, **options: Any) -> tuple[str, str]:
    """Prompt and response that teach this answer to the user's question."""
    task = build_told(template, Example([USER], answer, 0), form=form, **options)
    batch = task.supervised("warmup", [0])
    return tuple(task.tokenizer.decode(batch.ragged(name)[0]) for name in ("prompt_ids", "response_ids"))


def whole(template: str, *messages: Any, **options: Any) -> str:
    """What transformers writes."""
    return build_chat_tokenizer(template).apply_chat_template(list(messages), tokenize=False, **options)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_a_prompt_is_what_transformers_writes(name: str) -> None:
    template = TEMPLATES[name]
    expected = whole(template, USER, add_generation_prompt=True)
    assert prompt_of(build_told(template, Example([USER], "5", 0))) == expected
    assert prompt_of(build_told(template, Example("1+4?", "5", 0), form=ChatForm(as_chat=True))) == expected


@pytest.mark.parametrize("name", sorted({*TEMPLATES} - {"gemma"}))
def test_a_system_prompt_stands_before_chats_that_have_none(name: str) -> None:
    form = ChatForm(system_prompt="Be short.", as_chat=True)
    expected = whole(TEMPLATES[name], SYSTEM, USER, add_generation_prompt=True)
    for prompt in ([USER], [SYSTEM, USER], "1+4?"):
        assert prompt_of(build_told(TEMPLATES[name], Example(prompt, "5", 0), form=form)) == expected
    own = [{"role": "system", "content": "Be long."}, USER]
    assert prompt_of(build_told(TEMPLATES[name], Example(own, "5", 0), form=form)) == whole(
        TEMPLATES[name], *own, add_generation_prompt=True
    )


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_a_prefill_begins_the_turn(name: str) -> None:
    begun = whole(TEMPLATES[name], USER, add_generation_prompt=True)
    form = ChatForm(prefill="The answer is ")
    task = build_told(TEMPLATES[name], Example([USER], "5", 0), form=form)
    assert prompt_of(task) == begun + "The answer is "
    own = build_told(TEMPLATES[name], Example([USER, {"role": "assistant", "content": "So,"}], "5", 0), form=form)
    assert prompt_of(own).endswith("So,")


@pytest.mark.parametrize("name", ["chatml", "smollm2", "llama3", "gemma"])
@pytest.mark.parametrize("answer", ["5", "The answer is 5"])
def test_an_answer_says_the_prefill_once(name: str, answer: str) -> None:
    prompt, response = both(TEMPLATES[name], answer, ChatForm(prefill="The answer is "))
    expected = whole(TEMPLATES[name], USER, {"role": "assistant", "content": "The answer is 5"})
    assert (prompt + response).rstrip() == expected.rstrip()


@pytest.mark.parametrize("name", sorted(TEMPLATES))
@pytest.mark.parametrize("answer", ["5", f"{THOUGHT}5"])
def test_a_supervised_chat_is_what_transformers_writes(name: str, answer: str) -> None:
    prompt, response = both(TEMPLATES[name], answer)
    assert (prompt + response).rstrip() == whole(
        TEMPLATES[name], USER, {"role": "assistant", "content": answer}
    ).rstrip()


def test_thoughts_are_taught_as_qwen3_writes_them() -> None:
    assert both(QWEN3, "5")[1] == "<think>\n\n</think>\n\n5<|im_end|>"
    assert both(QWEN3, "<think>four and one</think>5")[1] == f"{THOUGHT}5<|im_end|>"
    prompt, response = both(QWEN3, "5", enable_thinking=False)
    assert prompt.endswith("<think>\n\n</think>\n\n") and response == "5<|im_end|>"
    prompt, response = both(QWEN3, f"{THOUGHT}5", ChatForm(prefill="<think>\n"))
    assert prompt.endswith("assistant\n<think>\n") and prompt[-8:] + response == f"{THOUGHT}5<|im_end|>"
    opened = [USER, {"role": "assistant", "content": "<think>\nfour"}]
    task = build_told(QWEN3, Example(opened, " and one\n</think>\n\n5", 0))
    assert prompt_of(task).endswith("assistant\n<think>\nfour")
    assert task.tokenizer.decode(task.supervised("warmup", [0]).ragged("response_ids")[0]).startswith(" and one\n</")


def test_thoughts_of_a_template_that_always_thinks() -> None:
    prompt, response = both(ALWAYS_THINKS, f"{THOUGHT}5")
    assert prompt.endswith("<think>\n") and prompt[-8:] + response == f"{THOUGHT}5<|im_end|>"
    for template, form in ((ALWAYS_THINKS, ChatForm()), (QWEN35, ChatForm(prefill="It is "))):
        with pytest.raises(DataError, match=r"row 0 .*the assistant's turn begins with a thought, .*does not end one"):
            both(template, "5", form)
    prompt, response = both(QWEN35, "four and one</think>5", ChatForm(prefill="It is "))
    assert prompt.endswith("<think>\nIt is ") and response == "four and one\n</think>\n\n5<|im_end|>"


def test_an_answer_that_thinks_where_it_is_not_to_names_its_row() -> None:
    with pytest.raises(
        DataError, match=r"row 0 .*the assistant's turn begins with an empty thought.*leave .*enable_th"
    ):
        both(QWEN3, f"{THOUGHT}5", enable_thinking=False)


def test_tools_stand_where_the_template_has_them() -> None:
    found = prompt_of(build_told(QWEN3, Example([USER], "5", 0), tools=TOOLS))
    assert found == whole(QWEN3, USER, add_generation_prompt=True, tools=TOOLS) and '"add"' in found
    with pytest.raises(ValueError, match="the chat template does not read 'tools'"):
        Encoder(build_chat_tokenizer(CHATML), {"tools": TOOLS})


@pytest.mark.parametrize("key", ["system_prompt", "prefill"])
def test_a_text_has_no_turns(key: str) -> None:
    task = build_told(CHATML, Example("1+4?", "5", 0), form=ChatForm(**{key: "x"}))
    with pytest.raises(
        DataError, match=rf"row 0 .*is a text, which has no turns to put task.{key} into; set task.as_ch"
    ):
        task.rows("train", [0])


@pytest.mark.parametrize(
    ("template", "form", "line"),
    [
        (
            GEMMA,
            ChatForm(system_prompt="x"),
            "task.system_prompt: the chat template does not take .*not supported; leave",
        ),
        (
            DEAF,
            ChatForm(system_prompt="x"),
            "task.system_prompt: the chat template writes no system messages; leave it",
        ),
        (DEAF, ChatForm(prefill="x"), r"task.prefill: .*has '<\|im_start\|>assistant' before what is said"),
        (None, ChatForm(as_chat=True), "task.as_chat: the tokenizer has no chat template; use a chat model"),
        (None, ChatForm(system_prompt="x"), "task.system_prompt: the tokenizer has no chat template"),
    ],
)
def test_what_a_template_cannot_do_is_one_error_before_the_start(
    template: str | None, form: ChatForm, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tasks._components, "told", Told)
    with pytest.raises(ConfigError, match=line):
        build("told", build_chat_tokenizer(template), {}, chat_form=form)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_forms_that_a_template_can_do_are_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tasks._components, "told", Told)
    form = ChatForm(system_prompt="" if name == "gemma" else "x", as_chat=True, prefill="y")
    assert build("told", build_chat_tokenizer(TEMPLATES[name]), {}, chat_form=form).chat_form is form


def test_the_chat_that_travels_is_the_one_that_is_asked() -> None:
    task = build_told(CHATML, Example("1+4?", "5", 0), form=ChatForm(system_prompt="Be short.", as_chat=True))
    assert next(task._examples("train", [0]))[1].prompt == [SYSTEM, USER]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "does not take .*: it took longer than 0.2 s",
        ),
        ("{{ 'a' * 4000001 }}", "makes 4000001 characters of .*; at most 4000000"),
        ("{{ ''.__class__.__mro__ }}", "does not take .*: access to attribute '__class__' of 'str' object is unsafe"),
        ("{% include '/etc/passwd' %}", "does not take .*: no loader for this environment"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "does not take .*: maximum recursion depth exceeded"),
    ],
)
def test_a_hostile_template_is_told_and_ends(template: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "RENDER_S", 0.2 if "range" in template else 3.0)
    with pytest.raises(DataError, match=f"row 0 of split 'warmup': the chat template {said}"):
        build_told(template, Example([USER], "5", 0)).rows("warmup", [0])
