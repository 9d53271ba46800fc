"""Ready formats: what people's rows are as questions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from hybridflow.tasks.row_fields import Fields
from hybridflow.tasks.row_formats import NAMES, Mapper, Question, detect
from hybridflow.tasks.strict_json import RowError

USER = {"role": "user", "content": "2+2?"}
RIGHT = {"role": "assistant", "content": "4"}
WRONG = {"role": "assistant", "content": "5"}
SYSTEM = {"role": "system", "content": "Be brief."}


def question(row: Mapping[str, Any], name: str = "auto") -> Question:
    return Mapper(detect(row, name), {}).read(row)[0]


VERL = {
    "data_source": "openai/gsm8k",
    "prompt": [USER],
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "4"},
    "extra_info": {"split": "train", "index": 7},
}
KNOWN = [
    ("verl", VERL, Question([USER], "4")),
    ("trl", {"prompt": "2+2=", "answer": "4"}, Question("2+2=", "4")),
    ("trl", {"prompt": "2+2=", "answer": 4}, Question("2+2=", 4)),
    ("trl", {"prompt": "2+2=", "completion": "4"}, Question("2+2=", "4")),
    ("trl", {"prompt": [USER], "completion": [RIGHT]}, Question([USER], "4")),
    ("trl", {"prompt": "2+2="}, Question("2+2=")),
    ("trl", {"prompt": [USER]}, Question([USER])),
    ("trl", {"prompt": "2+2=", "chosen": "4", "rejected": "5"}, Question("2+2=", "4", rejected="5")),
    ("trl", {"prompt": [USER], "chosen": [RIGHT], "rejected": [WRONG]}, Question([USER], "4", rejected="5")),
    (
        "trl",
        {"prompt": "2+2?", "chosen": [USER, RIGHT], "rejected": [USER, WRONG]},
        Question([USER], "4", rejected="5"),
    ),
    (
        "trl",
        {"chosen": [SYSTEM, USER, RIGHT], "rejected": [SYSTEM, USER, WRONG]},
        Question([SYSTEM, USER], "4", None, "5"),
    ),
    (
        "trl",
        {"chosen": "The sky is blue.", "rejected": "The sky is black."},
        Question("The sky is", " blue.", None, " black."),
    ),
    (
        "trl",
        {"chosen": "\n\nHuman: 2+2?\n\nAssistant: 4", "rejected": "\n\nHuman: 2+2?\n\nAssistant: 5"},
        Question("\n\nHuman: 2+2?\n\nAssistant:", " 4", None, " 5"),
    ),
    ("openrlhf", {"input": "2+2=", "output": "4"}, Question("2+2=", "4")),
    ("openrlhf", {"input": [USER], "label": "4"}, Question([USER], "4")),
    ("gsm8k", {"question": "2+2?", "answer": "Add.\n#### 4"}, Question("2+2?", "4", "Add.\n#### 4")),
    ("qa", {"question": "2+2?", "answer": "4"}, Question("2+2?", "4")),
    ("alpaca", {"instruction": "Add.", "input": "2, 2", "output": "4"}, Question("Add.\n\n2, 2", "4")),
    ("alpaca", {"instruction": "Add 2, 2.", "input": "", "output": "4"}, Question("Add 2, 2.", "4")),
    ("alpaca", {"instruction": "Add 2, 2.", "output": "4"}, Question("Add 2, 2.", "4")),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}], "system": "Be brief."},
        Question([SYSTEM, USER], "4"),
    ),
    ("sharegpt", {"conversations": [SYSTEM, USER, RIGHT]}, Question([SYSTEM, USER], "4")),
    ("messages", {"messages": [USER, WRONG, USER, RIGHT]}, Question([USER, WRONG, USER], "4")),
    ("messages", {"messages": [USER]}, Question([USER])),
]


@pytest.mark.parametrize(("name", "row", "expected"), KNOWN)
def test_a_row_is_found_by_its_columns_and_read(name: str, row: Mapping[str, Any], expected: Question) -> None:
    assert detect(row).name == name
    assert question(row) == question(row, name) == expected


def test_every_format_is_shown_here() -> None:
    assert {name for name, _, _ in KNOWN} == set(NAMES)


def test_what_a_format_does_not_read_travels_along() -> None:
    _, rest, source, _ = Mapper(detect(VERL), {}).read(VERL)
    assert source == "openai/gsm8k"
    assert rest == {name: VERL[name] for name in ("ability", "reward_model", "extra_info")}


def test_columns_that_fit_several_formats_are_an_error_that_lists_them() -> None:
    row = {"prompt": "2+2?", "chosen": "4", "rejected": "5", "messages": [USER, RIGHT]}
    with pytest.raises(ValueError, match=r"fit trl \(prompt, chosen, rejected\) and messages \(messages\); name one"):
        detect(row)
    assert question(row, "messages") == Question([USER], "4")


def test_columns_that_fit_none_are_an_error_that_says_what_is_known() -> None:
    with pytest.raises(ValueError, match=r"the columns text, n fit no format; known are verl .*columns.prompt=NAME"):
        detect({"text": "x", "n": 1})
    with pytest.raises(ValueError, match=r"the columns text fit not alpaca; known are alpaca \(instruction, output\)"):
        detect({"text": "x"}, "alpaca")


OWN = [
    ({"prompt": "q", "answer": "a"}, "", Question("2+2?", 4)),
    ({"prompt": "deep.turns.0.text", "answer": "deep.n"}, "", Question("first", 4)),
    ({"prompt": "dotted.name"}, "", Question("found")),
    ({"answer": "a"}, "Q: {q}\nNote {{n}}: {deep.n}\nA:", Question("Q: 2+2?\nNote {n}: 4\nA:", 4)),
    ({"prompt": "q", "answer": "a", "response": "why"}, "", Question("2+2?", 4, "because")),
    ({"prompt": "q", "chosen": "why", "rejected": "not"}, "", Question("2+2?", "because", None, "no idea")),
    ({"prompt": "chat"}, "", Question([USER])),
]


@pytest.mark.parametrize(("columns", "template", "expected"), OWN)
def test_columns_of_the_user_s_own(columns: Mapping[str, str], template: str, expected: Question) -> None:
    row = {
        "q": "2+2?",
        "a": 4,
        "why": "because",
        "not": "no idea",
        "chat": [USER],
        "dotted.name": "found",
        "deep": {"turns": [{"text": "first"}], "n": 4},
    }
    assert Mapper(None, columns, template).read(row)[0] == expected


def test_own_columns_change_those_of_a_format() -> None:
    row = {"question": "2+2?", "answer": "Add.\n#### 4", "short": "four", "from": "book", "name": "q7"}
    found, rest, source, id = Mapper(detect(row), {"answer": "short", "source": "from", "id": "name"}).read(row)
    assert found == Question("2+2?", "four", "Add.\n#### 4")
    assert (rest, source, id) == ({}, "book", "q7")


FAULTS = [
    ("gsm8k", {"question": "2+2?"}, "column 'answer' is missing; the row has question", "column 'answer' is missing"),
    ("gsm8k", {"question": None, "answer": "#### 4"}, "column 'question' is null; a text was", "is no text"),
    ("gsm8k", {"question": "2+2?", "answer": "4"}, "column 'answer' has no answer after ####", "no ####"),
    (
        "qa",
        {"question": "2+2?", "answer": ["4"]},
        "column 'answer' is .*, a list; a text or a number was expected",
        "no",
    ),
    ("qa", {"question": "2+2?", "answer": True}, "column 'answer' is True, a boolean; a text or a number", "no"),
    ("verl", {"prompt": [USER], "reward_model": {}}, "column 'reward_model.ground_truth' is missing", "missing"),
    (
        "verl",
        {"prompt": [{"role": "user"}], "reward_model": {"ground_truth": "4"}},
        "column 'prompt': message 0",
        "chat",
    ),
    (
        "sharegpt",
        {"conversations": [{"from": "martian", "value": "?"}]},
        "turn 0 is from 'martian'; one of human",
        "chat",
    ),
    (
        "sharegpt",
        {"conversations": []},
        "column 'conversations' is .*; a list of chat messages was expected",
        "no list",
    ),
    ("messages", {"messages": [RIGHT]}, "column 'messages' has a message of the assistant and no prompt", "no prompt"),
    ("trl", {"chosen": [USER], "rejected": [USER]}, "do not differ in one last message of the assistant", "common"),
    ("trl", {"chosen": "yes", "rejected": "no"}, "'chosen' and 'rejected' have no beginning in common", "common"),
    (
        "trl",
        {"prompt": "1+1?", "completion": [USER, RIGHT]},
        "'completion' is a chat that does not begin with",
        "prompt",
    ),
]


@pytest.mark.parametrize(("name", "row", "said", "reason"), FAULTS)
def test_what_is_wrong_with_a_row_names_its_column(name: str, row: dict[str, Any], said: str, reason: str) -> None:
    complete = {"gsm8k": {"question": "", "answer": "#### 1"}, "verl": VERL}.get(name, row)
    with pytest.raises(RowError, match=said) as caught:
        Mapper(detect(complete, name), {}).read(row)
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"task": {"text": "2+2?", "level": 1}}, "column 'task.txt' is missing; 'task' has text, level"),
        ({"task": "2+2?"}, "column 'task.txt' is missing; 'task' is a text"),
        ({"task": ["2+2?"]}, "column 'task.txt' is missing; 'task' is a list of 1"),
        ({}, "column 'task.txt' is missing; the row has no column"),
    ],
)
def test_a_column_inside_another_is_missed_with_what_is_there(row: dict[str, Any], told: str) -> None:
    with pytest.raises(RowError, match=told):
        Fields(row).get("task.txt")


def test_a_template_that_names_no_column_of_a_row_is_a_fault_of_the_row() -> None:
    with pytest.raises(RowError, match="column 'q' is missing; the row has question"):
        Mapper(None, {}, "{q}").read({"question": "2+2?"})
