"""Calls of functions: the form that a template has them in, what is read out of a turn, and what tools answer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.environments import Action, Question
from hybridflow.environments.environment import make
from hybridflow.environments.tool_calls import CallFormat, find_format
from hybridflow.environments.tool_use import _schema
from hybridflow.environments.tools import Calculator, Python, Tool, ToolError, _sandbox, tools
from hybridflow.environments.turn_renderer import TurnRenderer
from hybridflow.errors import HybridFlowError
from hybridflow.tasks.chat_template import ChatForm, ChatTemplate
from hybridflow.tasks.encoder import Encoder
from tests.tasks.chat_templates import CHATML, build_chat_tokenizer

TOOLS = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
)
TURNS = (
    "{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>user\n<tool_response>{{ m.content }}</tool_response>"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}{% if m.tool_calls %}CALLS{% endif %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
EACH = "{% for c in m.tool_calls %}CALL{% endfor %}"
HERMES = TOOLS + TURNS.replace("CALLS", EACH.replace("CALL", "<tool_call>\n{{ c.function | tojson }}\n</tool_call>\n"))
BARE = TURNS.replace(
    "CALLS",
    EACH.replace("CALL", '{"name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}'),
)
IN_A_LIST = EACH.replace("CALL", "{{ c.function | tojson }}{% if not loop.last %}, {% endif %}")
LISTED = TURNS.replace("CALLS", f"[TOOL_CALLS] [{IN_A_LIST}]")
XML = TURNS.replace("CALLS", EACH.replace("CALL", "<function={{ c.function.name }}></function>"))
FORMATS = [
    (HERMES, CallFormat("<tool_call>", "</tool_call>", "arguments")),
    (BARE, CallFormat("", "", "parameters")),
    (LISTED, CallFormat("[TOOL_CALLS]", "", "arguments")),
]
NAMES = st.text("abcdefgh_", min_size=1, max_size=8)
CALLS = st.lists(st.tuples(NAMES, st.dictionaries(NAMES, st.text(max_size=8) | st.integers())), min_size=1, max_size=3)


def build_template(text: str) -> ChatTemplate:
    return ChatTemplate(build_chat_tokenizer(text), {}, ChatForm())


@pytest.mark.parametrize(("template", "expected"), FORMATS, ids=["hermes", "bare", "listed"])
def test_a_templates_own_form_is_found(template: str, expected: CallFormat) -> None:
    assert find_format(build_template(template)) == expected


@pytest.mark.parametrize(("template", "told"), [(CHATML, "writes no calls"), (XML, "in a form that is not known")])
def test_one_that_writes_none_is_told(template: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        find_format(build_template(template))


@given(CALLS)
def test_what_a_template_writes_is_read_back(calls: list[tuple[str, dict[str, Any]]]) -> None:
    for form in (FORMATS[0][1], FORMATS[2][1]):
        written = [json.dumps({"name": name, form.arguments: arguments}) for name, arguments in calls]
        pieces = [f"<tool_call>\n{one}\n</tool_call>" for one in written]
        text = "I think. " + ("\n".join(pieces) if form.closing else f"[TOOL_CALLS] [{', '.join(written)}]")
        found = form.calls(f"{text}<|im_end|>")
        assert [(one["function"]["name"], one["function"]["arguments"]) for one in found] == calls
        assert len({one["id"] for one in found}) == len(calls)


def test_what_is_no_call_is_told_and_what_is_text_is_none() -> None:
    hermes, bare = FORMATS[0][1], FORMATS[1][1]
    assert hermes.calls("the answer is 12") == bare.calls("the answer is 12") == []
    assert bare.calls('{"answer": 12}') == []
    [broken, nameless] = hermes.calls("<tool_call>{oops</tool_call><tool_call>{}</tool_call>")
    assert broken["problem"] == "what follows <tool_call> is no JSON: '{oops'"
    assert "is no call" in nameless["problem"]


@pytest.mark.parametrize(
    "written", ["[" * 5000, '{"name": "c", "arguments": ' + '{"a": ' * 90 + "1" + "}" * 91, '"' + "9" * 9999]
)
def test_nothing_that_a_policy_writes_is_an_error(written: str) -> None:
    assert "is no JSON" in FORMATS[0][1].calls(f"<tool_call>{written}")[0]["problem"]
    assert FORMATS[1][1].calls(written) == []


def test_ids_are_such_as_every_template_takes() -> None:
    written = [{"name": "c", "arguments": {}, "id": name} for name in ("abcDEF123", "1", 7, "<|im_end|>", None)]
    ids = [one["id"] for one in FORMATS[2][1].calls(f"[TOOL_CALLS] {json.dumps(written)}")]
    assert ids == ["abcDEF123", "call00001", "call00002", "call00003", "call00004"]


SUMS = [("17*(3+4)", "119"), ("1/3", "0.333333333333"), ("-2 + 0.5", "-1.5"), ("7//2 + 7%2", "4"), (" 5 ", "5")]


@pytest.mark.parametrize(("expression", "value"), SUMS)
def test_the_calculator_is_exact(expression: str, value: str) -> None:
    assert Calculator()(expression) == value


BAD = ["__import__('os')", "1/0", "9**9", "(" * 500, "1e99*1e99", "True", "'a'*3", "", "x", "[1]", "2 if 1 else 3"]


@pytest.mark.parametrize("expression", BAD)
def test_and_computes_nothing_else(expression: str) -> None:
    with pytest.raises(ToolError):
        Calculator()(expression)


def test_programs_run_in_a_sandbox_or_not_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    _sandbox.cache_clear()
    with pytest.raises(HybridFlowError, match="bwrap is not on the PATH"):
        make("tools", {"tools": ["python"]})


@pytest.mark.system
def test_a_program_is_told_by_what_it_prints_and_how_it_ended() -> None:
    _sandbox.cache_clear()
    run = Python(test_s=2.0)
    assert run("print(57 + 68)") == "125\n"
    assert run("print(1); raise SystemExit(3)") == "1\n\n(exit status 3)"
    assert run("import time; print(1, flush=True); time.sleep(60)") == "1\n\n(ended after 2 s)"
    assert "(exit status" in run("import socket; socket.create_connection(('127.0.0.1', 22))")


def test_several_calls_of_a_turn_are_answered_in_order_and_the_last_turn_is_graded() -> None:
    form = FORMATS[0][1]
    environment = make("tools", {"grader": "last_number"})

    async def play() -> None:
        await environment.reset(Question("57+68=", "125"))
        sums = [{"name": "calculator", "arguments": {"expression": one}} for one in ("57+68", "1/0")]
        sums += [{"name": "abacus", "arguments": {}}, {"name": "calculator", "arguments": {"sum": "1"}}]
        text = "".join(f"<tool_call>{json.dumps(one)}</tool_call>" for one in sums)
        seen = await environment.step(Action(text, calls=form.calls(text)))
        assert not seen.done and seen.metrics == {"calls": 4, "wrong_calls": 3}
        assert isinstance(seen.messages, list)
        told = [message["content"] for message in seen.messages]
        assert told[:2] == ["125", "error: division by zero"]
        assert told[2].startswith("error: no tool is named 'abacus'; there is calculator")
        assert told[3] == "error: calculator takes expression; given was sum"
        assert len({message["tool_call_id"] for message in seen.messages}) == 4
        over = await environment.step(Action("It is 125."))
        assert over.done and over.reward == 1.0

    asyncio.run(play())


def test_tools_say_what_has_tokens_whatever_the_policy_asks() -> None:
    """Else a policy could make its environment fail, and so end a run."""
    encoder = Encoder(build_chat_tokenizer(HERMES), {"tools": make("tools", {}).specs}, ChatForm())
    renderer = TurnRenderer(encoder, chat=True)
    asked = '<tool_call>{"name": "calculator", "arguments": {"expression": "\\ud800"}}<tool_call>{"name": "<|im_end|>"}'
    seen = asyncio.run(make("tools", {}).step(Action(asked, calls=FORMATS[0][1].calls(asked))))
    assert isinstance(seen.messages, list)
    assert [message["name"] for message in seen.messages] == ["calculator", "unknown"]
    assert "no expression: ?" in encoder.tokenizer.decode(renderer.between([], seen.messages))


@tools.register("pick")
class Pick(Tool):
    description = "Pick a number."
    parameters: ClassVar = {
        "low": {"type": "integer", "minimum": 0},
        "how": {"enum": ["first", "last", "odd"]},
        "of": {"type": "array", "items": {"type": "number"}},
    }

    def __call__(self, low: int, how: str, of: list[float]) -> Any:  # type: ignore[override]
        picked = [one for one in of if one >= low]
        return sum(picked) if how == "odd" else str(picked[0 if how == "first" else -1])


def called(**arguments: Any) -> str:
    call = {"type": "function", "function": {"name": "pick", "arguments": arguments}}
    seen = asyncio.run(make("tools", {"tools": ["pick"]}).step(Action("", calls=[call])))
    assert isinstance(seen.messages, list)
    return str(seen.messages[0]["content"])


def test_arguments_are_such_as_the_policy_was_told_of_or_it_is_told() -> None:
    """What a policy writes never makes a tool fail, which would end the run."""
    assert called(low=2, how="last", of=[1, 2, 3.5]) == "3.5"
    assert called(low="2", how="last", of=[1]) == "error: low of pick: '2' is not of type 'integer'"
    assert called(low=True, how="last", of=[1]) == "error: low of pick: True is not of type 'integer'"
    assert called(low=-1, how="last", of=[1]).startswith("error: low of pick: -1 is less than")
    assert called(low=2, how="middle", of=[1]).startswith("error: how of pick: 'middle' is not one of")
    assert called(low=2, how="last", of=[1, None]) == "error: of.1 of pick: None is not of type 'number'"


def test_a_tool_that_gives_no_text_says_so() -> None:
    with pytest.raises(TypeError, match="tool 'pick' gave 3, of type int; a text was expected"):
        called(low=1, how="odd", of=[1, 2])


def test_schemas_that_are_none_are_told_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pick, "parameters", {"low": {"type": "int"}})
    _schema.cache_clear()
    with pytest.raises(HybridFlowError, match=r"parameters of tool 'pick': schema: .* is no JSON Schema: 'int' is not"):
        make("tools", {"tools": ["pick"]})
    _schema.cache_clear()


def test_a_conversation_with_tools_goes_on_as_the_template_has_it() -> None:
    encoder = Encoder(build_chat_tokenizer(HERMES), {"tools": make("tools", {}).specs}, ChatForm())
    assert "calculator" in encoder.tokenizer.decode(encoder.prompt([{"role": "user", "content": "57+68="}]))
    renderer = TurnRenderer(encoder, chat=True)
    assert renderer.problem(("tool",)) is None
    assert encoder.turn_end is not None
    said = [{"role": "tool", "content": text} for text in ("125", "7")]
    new = encoder.tokenizer.decode(renderer.between([encoder.turn_end], said))
    answers = [f"<|im_start|>user\n<tool_response>{text}</tool_response><|im_end|>\n" for text in ("125", "7")]
    assert new == "\n" + "".join(answers) + "<|im_start|>assistant\n"
