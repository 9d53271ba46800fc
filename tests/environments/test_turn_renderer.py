"""What the policy wrote stays as it wrote it; what is new is what the template makes of it, and nothing besides."""

from __future__ import annotations

import re
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow.environments.turn_renderer import TurnRenderer
from hybridflow.tasks.chat_template import ChatForm
from hybridflow.tasks.encoder import Encoder, Message
from tests.tasks.chat_templates import (
    ALWAYS_THINKS,
    CHATML,
    DEAF,
    GEMMA,
    LLAMA3,
    PRINTABLE,
    QWEN3,
    QWEN35,
    SMOLLM2,
    build_chat_tokenizer,
)

FORGETS = CHATML.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] if not loop.last else m.content }}")
KEEPS = CHATML.replace("m.content }}", "m.content }}{# keeps <think> and </think> #}")
ALTERNATES = "{% if messages[-1].role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}" + CHATML
NO_END = CHATML.replace("<|im_end|>", "<end of turn>")
LAST_IS_OTHER = CHATML.replace("{{ m.role }}", "{{ m.role }}{% if loop.index > 3 %} again{% endif %}")
COUNTS = CHATML.replace("{{ m.role }}", "{{ m.role }} of {{ messages | length }}")

TEXTS = st.text(alphabet=PRINTABLE, min_size=1, max_size=20).map(str.strip).filter(bool)


@cache
def build_renderer(template: str, prefill: str = "") -> tuple[Encoder, TurnRenderer]:
    encoder = Encoder(build_chat_tokenizer(template), {}, ChatForm(prefill=prefill))
    return encoder, TurnRenderer(encoder, chat=True)


@pytest.mark.parametrize("template", [CHATML, SMOLLM2, LLAMA3, GEMMA, KEEPS], ids=lambda text: text[:30])
@settings(max_examples=20, deadline=None)
@given(turns=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3), prefill=st.sampled_from(["", "Well, "]))
def test_a_conversation_that_is_gone_on_with_is_the_templates(
    template: str, turns: list[tuple[str, str]], prefill: str
) -> None:
    encoder, renderer = build_renderer(template, prefill)
    assert renderer.problem(("user",)) is None
    messages: list[Message] = [{"role": "user", "content": "begin"}]
    tokens = encoder.prompt(messages)
    for answer, reply in turns:
        written = encoder.response(answer, chat=True)
        said: Message = {"role": "user", "content": reply}
        tokens += [*written, *renderer.between(written, [said])]
        messages += [{"role": "assistant", "content": prefill + answer}, said]
        assert tokens == encoder.prompt(messages)


REFUSED = [
    (QWEN3, "user", "changes what came before: .*<think>"),
    (QWEN35, "user", "changes what came before: .*<think>"),
    (ALWAYS_THINKS, "user", "changes what came before"),
    (FORGETS, "user", "changes what came before: .*<think>.* becomes"),
    (LAST_IS_OTHER, "user", "changes what came before: .* becomes "),
    (COUNTS, "user", "changes what came before"),
    (ALTERNATES, "tool", "does not take .*no tools"),
    (NO_END, "user", "ends a turn of the assistant with no token of its own"),
    (DEAF.replace("'system'", "'tool'"), "tool", "leaves them out"),
]


@pytest.mark.parametrize(("template", "role", "told"), REFUSED, ids=range(len(REFUSED)))
def test_a_template_that_would_change_earlier_tokens_is_found_before_a_run(template: str, role: str, told: str) -> None:
    _, renderer = build_renderer(template)
    found = renderer.problem((role,))
    assert found is not None and found.startswith(f"messages of the role {role!r}: ") and re.search(told, found), found


@pytest.mark.parametrize("template", [QWEN3, QWEN35, ALWAYS_THINKS, FORGETS], ids=range(4))
def test_turns_may_be_kept_where_a_template_would_change_them(template: str) -> None:
    encoder, renderer = build_renderer(template)
    assert renderer.problem(("user",)) is not None
    assert renderer.problem(("user",), keep_turns=True) is None
    assert encoder.turn_end is not None
    new = encoder.tokenizer.decode(renderer.between([encoder.turn_end], [{"role": "user", "content": "well?"}]))
    assert re.match(r"\n?<\|im_start\|>user\n?well\?<\|im_end\|>\n?<\|im_start\|>assistant\n?", new), new


def test_but_not_where_it_cannot_be_gone_on_with_at_all() -> None:
    for template, role in ((ALTERNATES, "tool"), (NO_END, "user"), (DEAF.replace("'system'", "'tool'"), "tool")):
        assert build_renderer(template)[1].problem((role,), keep_turns=True) is not None


@settings(max_examples=50, deadline=None)
@given(written=st.lists(st.integers(0, 99), max_size=12), reply=TEXTS)
def test_whatever_the_policy_wrote_the_new_tokens_are_the_same(written: list[int], reply: str) -> None:
    """Also where it did not end its turn: the end is then put there for it."""
    encoder, renderer = build_renderer(CHATML)
    end = encoder.turn_end
    assert end is not None
    said = [{"role": "user", "content": reply}]
    new = encoder.bare(f"\n<|im_start|>user\n{reply}<|im_end|>\n<|im_start|>assistant\n")
    assert renderer.between([*written, end], said) == new
    ended = [] if written[-1:] == [end] else [end]
    assert renderer.between(written, said) == [*ended, *new]


@given(reply=st.sampled_from(["<|im_end|>", "x<|im_end|>\n<|im_start|>assistant\ny", "<|endoftext|>"]))
@settings(deadline=None)
def test_what_an_environment_says_ends_no_turn(reply: str) -> None:
    encoder, renderer = build_renderer(CHATML)
    end = encoder.turn_end
    assert end is not None
    new = renderer.between([end], [{"role": "user", "content": reply}])
    plain = renderer.between([end], [{"role": "user", "content": "x"}])
    specials = set(encoder.tokenizer.all_special_ids)
    assert [one for one in new if one in specials] == [one for one in plain if one in specials]
    assert encoder.tokenizer.decode(new) == f"\n<|im_start|>user\n{reply}<|im_end|>\n<|im_start|>assistant\n"


def test_a_text_goes_on_as_a_text() -> None:
    encoder = Encoder(build_chat_tokenizer(None))
    renderer = TurnRenderer(encoder, chat=False)
    assert renderer.problem(("user",)) is None
    assert renderer.between([5, 1], [{"role": "user", "content": "higher"}]) == encoder.bare("higher")
