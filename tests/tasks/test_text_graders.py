"""Graders of texts: a pattern, a letter, tags, JSON, a length."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.errors import HybridFlowError
from hybridflow.tasks import GradedRow
from hybridflow.tasks.fenced_block import last_fenced_block
from hybridflow.tasks.grader_registry import bind
from hybridflow.tasks.grading_process import GradingOrder, GradingProcess

SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "multipleOf": 0.5}, "next": {"$ref": "#"}},
    "required": ["age"],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "regex": {"pattern": r"#### (\S+)"},
    "multiple_choice": {},
    "brevity": {"budget": 4},
    "tags": {},
    "json_schema": {"schema": SCHEMA},
}


def grade(name: str, response: str, answer: str = "B", options: dict[str, Any] | None = None, **row: Any) -> float:
    grader = bind(name, OPTIONS[name] if options is None else options)
    (given,) = grader.grade_rows([GradedRow(response, answer, **row)])  # type: ignore[misc]
    return given


@pytest.mark.parametrize(
    ("response", "options", "expected"),
    [
        ("#### 72", {}, 1.0),
        ("#### 5\n#### 72 ", {}, 1.0),
        ("#### 72\n#### 5", {}, 0.0),
        ("72", {}, 0.0),
        ("#### 72", {"group": 0}, 0.0),
        ("it is 72", {"pattern": r"\d+"}, 1.0),
        ("it is 72", {"pattern": r"(five)?.*is (\d+)", "group": 2}, 1.0),
        ("it is 72", {"pattern": r"(five)?.*is (\d+)"}, 0.0),
        ("<answer>\n72\n</answer>", {"pattern": r"(?s)<answer>(.*?)</answer>"}, 1.0),
    ],
)
def test_regex(response: str, options: dict[str, Any], expected: float) -> None:
    assert grade("regex", response, "72", OPTIONS["regex"] | options) == expected


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("regex", {"pattern": "(a"}, "is no regular expression: missing"),
        ("regex", {"pattern": "a(b)", "group": 2}, "has 1; 0 is the whole match"),
        ("regex", {"pattern": "a", "group": -1}, "at least 0"),
        ("regex", {}, "pattern: must be given"),
        ("tags", {"tags": ["a b"]}, "a list of names was expected"),
        ("tags", {"tags": []}, "a list of names was expected"),
        ("json_schema", {"schema": {"type": "text"}}, "is no JSON Schema"),
        ("json_schema", {"schema": 3}, "schema: 3 is no JSON Schema: a mapping was expected"),
        ("json_schema", {"schema": {"$ref": "#"}}, "refers to itself without end"),
        ("json_schema", {"schema": {"$ref": "#/$defs/a"}}, "'#/\\$defs/a' is not in the schema itself"),
        ("json_schema", {"schema": {"items": {"$ref": "file:///etc/passwd"}}}, "passwd' is not in the schema itself"),
        ("json_schema", {"schema": {"allOf": [{"$ref": "http://127.0.0.1:9/x"}]}}, "nothing else is read"),
        ("brevity", {"budget": 0}, "at least 1"),
        ("brevity", {"budget": 9, "over": 9}, "over: 9 given, more than budget"),
        ("http", {"url": "http://127.0.0.1:99999"}, "url: .* an address was expected"),
        ("http", {"url": "http://[::1"}, "url: .* an address was expected"),
        ("http", {"url": "http://a/\n"}, "url: .* an address was expected"),
    ],
)
def test_wrong_options_are_told(name: str, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(HybridFlowError, match=problem):
        bind(name, options)


def test_a_schema_may_refer_to_itself_where_values_end() -> None:
    tree = {"type": "object", "properties": {"inner": {"$ref": "#/$defs/tree"}}, "additionalProperties": False}
    options = {"schema": {"$id": "https://example.org/tree", "$ref": "#/$defs/tree", "$defs": {"tree": tree}}}
    assert grade("json_schema", '{"inner": {"inner": {}}}', options=options) == 1.0
    assert grade("json_schema", '{"inner": {"outer": {}}}', options=options) == 0.0


@pytest.mark.processes
def test_a_pattern_that_never_ends_is_ended_by_the_deadline() -> None:
    options = {"pattern": r"^(a+)+$"}
    process = GradingProcess(GradingOrder([bind("regex", options)], [options], deadline_s=0.3))
    rows = [GradedRow(response, "a") for response in ("a", "a" * 40 + "b", "a")]
    outcomes = process.grade(0, rows)
    process.close()
    assert [outcome and (outcome.grade.value if outcome.grade else outcome.kind) for outcome in outcomes] == [
        1.0, "late", 1.0,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        (r"So \boxed{B}.", "B"),
        (r"\boxed{\text{B}}", "B"),
        (r"\boxed{(b)}", "B"),
        (r"\boxed{A} no, \boxed{B}", "B"),
        (r"\boxed{B}, though the answer is C", "B"),
        ("Answer: (B)", "B"),
        ("**Answer:** B", "B"),
        ("The answer is B) Paris, not C", "B"),
        ("the correct option is **B**.", "B"),
        ("answer: (b)", "B"),
        ("Answer: A. No. Answer: B", "B"),
        ("A cat has B", "B"),
        ("The answer is B because A is not.", "B"),
        ("Answer: A\nbecause", "A"),
        ("C and I think", "C"),
        ("B", "B"),
        (" (B) \n", "B"),
        ("First A, then C, then B.", "B"),
        ("The answer is A number of things: B", "B"),
        ("It's B. A cat.", "B"),
        ("vitamin-B or C", "C"),
        ("b", None),
        ("", None),
        ("USB", None),
        ("A cat", None),
        (r"\boxed{12}", None),
    ],
)
def test_multiple_choice(response: str, letter: str | None) -> None:
    for answer in "ABC":
        assert grade("multiple_choice", response, answer) == float(letter == answer)


def test_the_answer_of_a_choice_is_a_letter() -> None:
    check = bind("multiple_choice").check_answer
    assert check is not None
    assert [check(answer) for answer in ("B", " (b)", "B.")] == ["B"] * 3
    for answer in ("Paris", "", "BC", "Z", 2):
        with pytest.raises(ValueError, match="a letter from A to J was expected"):
            check(answer)  # type: ignore[arg-type]


@pytest.mark.parametrize(("tokens", "expected"), [(0, 1.0), (4, 1.0), (5, 0.75), (6, 0.5), (8, 0.0), (900, 0.0)])
def test_brevity(tokens: int, expected: float) -> None:
    assert grade("brevity", "x", response_tokens=tokens) == expected
    assert grade("brevity", "x", options={"budget": 4, "over": 5}, response_tokens=tokens) == float(tokens <= 4)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("<think>a</think><answer>b</answer>", 1.0),
        (" <think>\n</think>\n\n<answer></answer>\n", 1.0),
        ("<think>a</think> so <answer>b</answer>", 0.0),
        ("<answer>b</answer><think>a</think>", 0.0),
        ("<think>a<answer>b</answer></think>", 0.0),
        ("<think>a</think><answer>b</answer><answer>b</answer>", 0.0),
        ("<think>a</think><answer>b", 0.0),
        ("<think>a</think><answer>b</answer> done", 0.0),
        ("", 0.0),
    ],
)
def test_tags(response: str, expected: float) -> None:
    assert grade("tags", response) == expected
    assert grade("tags", response.replace("<think>", "", 1), options={"first_is_open": True}) == expected
    assert grade("tags", response.replace("think", "plan"), options={"tags": ["plan", "answer"]}) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ('{"age": 3}', 1.0),
        ('{"age": 3, "next": {"age": 4}}', 1.0),
        ('{"age": 3, "next": {}}', 0.0),
        ('Here:\n```json\n{"age": 3}\n```\nDone.', 1.0),
        ('```\n{}\n```\n~~~\n{"age": 3}\n~~~', 1.0),
        ('{"age": 3}\n```\n{}\n```', 0.0),
        ('so {"age": 3}', 0.0),
        ('{"age": NaN}', 0.0),
        ('{"age": 1e999}', 0.0),
        ('{"age": ' + "9" * 400 + "}", 0.0),
        ('{"age": ' + "9" * 5000 + "}", 0.0),
        ("[" * 100_000, 0.0),
        ('{"next": ' * 5000 + "}" * 5000, 0.0),
        ("", 0.0),
    ],
)
def test_json_schema(response: str, expected: float) -> None:
    assert grade("json_schema", response) == expected


def test_a_schema_may_stand_in_the_row() -> None:
    assert grade("json_schema", "3", options={}, metadata={"schema": {"type": "integer"}}) == 1.0
    assert grade("json_schema", "3", options={"field": "s"}, metadata={"s": '{"type": "string"}'}) == 0.0
    with pytest.raises(ValueError, match="the row's metadata has no 'schema'"):
        grade("json_schema", "3", options={})


def test_the_last_closed_block_counts() -> None:
    assert last_fenced_block("```py\na\n```\ntext\n````\n```\nb\n```\n````") == "```\nb\n```\n"
    assert last_fenced_block("```\na\n```\n```\nb") == "a\n"
    assert last_fenced_block("a ``` b") is None


@given(response=st.text() | st.text('AB(){}\\boxed answer:is```\n~<think>/[]"#1e9', max_size=80))
def test_no_response_breaks_a_grader(response: str) -> None:
    for name in OPTIONS:
        assert 0.0 <= grade(name, response, response_tokens=len(response)) <= 1.0
