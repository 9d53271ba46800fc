"""`hybridflow data` of registered tasks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hybridflow.cli import main
from hybridflow.errors import DataError
from hybridflow.tasks import Example, PreferenceTask, Task, tasks
from tests.tasks.chat_templates import CHATML, build_chat_tokenizer

ROWS = [
    Example("one?", "1", 0, {"level": 3, "note": "x"}, "a"),
    Example("two?\x1b[2J", "2", 1, {"level": 1.5}, "a"),
    Example(" one? ", "1", 2, {"level": None}, "b"),
    None,
    Example("four? it is long", "four", 3, {"level": 2}),
]


class Told(Task):
    """The rows above; row 3 cannot be read."""

    def size(self, split: str) -> int:
        return {"train": len(ROWS), "held_out": 2, "warmup": 0}[split]

    def example(self, split: str, index: int) -> Example:
        row = ROWS[index]
        if row is None:
            raise DataError("rows.jsonl:4: no prompt\x07", reason="no prompt")
        return row

    def rows_origin(self) -> str:
        return "of rows.jsonl"


class Pairs(Told, PreferenceTask):
    """The rows above, each with a long wrong answer."""

    def rejected(self, split: str, index: int) -> str:
        return "wrong " * 5


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(tasks._components, "told", Told)
    monkeypatch.setitem(tasks._components, "pairs", Pairs)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `hybridflow data`, which must succeed; what it prints."""

    def ask(*arguments: str) -> str:
        assert main(["data", *arguments]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return ask


@pytest.fixture
def model(tmp_path: Path) -> str:
    build_chat_tokenizer(CHATML).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_without_a_model_it_is_in_characters_and_says_so(say: Any) -> None:
    lines = say("told").splitlines()
    assert lines[:3] == ["task: told, of rows.jsonl", "train: 5 rows", "  2 from a"]
    assert "lengths are in characters of the texts alone: name a model folder too, and they are in its tokens" in lines
    assert "train: prompts in characters: 4 to 16, half of them up to 6, 95 % up to 16" in lines
    assert "which rows are too long is not known without a model" in lines
    at = lines.index("train, row 1")
    assert lines[at + 1 : at + 5] == ["  prompt", r"    | two?\x1b[2J", "  answer", "    | 2"]


def test_columns_have_types_and_what_is_missing(say: Any) -> None:
    lines = say("told").splitlines()
    at = lines.index("columns of train")
    assert [line.split(maxsplit=1) for line in lines[at + 1 : at + 6]] == [
        ["prompt", "text, missing in 20.0%"],
        ["answer", "text, missing in 20.0%"],
        ["sample_id", "number, missing in 20.0%"],
        ["level", "number, missing in 40.0%"],
        ["note", "text, missing in 80.0%"],
    ]


def test_what_cannot_be_used_and_what_comes_twice(say: Any) -> None:
    out = say("told", "task.malformed=skip")
    assert (
        "train: 1 of 5 rows cannot be used (task.malformed = skip): no prompt; the first: "
        r"rows.jsonl:4: no prompt\x07" in out
    )
    assert "train: 1 rows repeat the question of an earlier row" in out
    assert "2 questions of held_out are in train too" in out
    assert "held_out: every row that was read can be used" in out
    graded = say("told", "reward.grader=last_number")
    assert re.search(
        r"train: 1 of 5 rows cannot be used \(task.malformed = error\); the first: row 4 of .*'four'", graded
    )


def test_with_a_model_prompts_are_tokens_and_what_does_not_fit_is_counted(say: Any, model: str) -> None:
    settings = ("task.as_chat=true", "rollout.max_sequence_tokens=60", "rollout.max_response_tokens=20")
    lines = say("told", model, *settings).splitlines()
    at = lines.index("train, row 0")
    assert lines[at + 1].startswith("  prompt, ") and lines[at + 2 : at + 4] == [
        "    | <|im_start|>user",
        "    | one?<|im_end|>",
    ]
    assert "'<|im_start|>' 'u' 's' 'e' 'r'" in lines[at + 6]
    assert lines[at + 7 : at + 10] == ["  answer, 2 tokens", "    | 1<|im_end|>", "    = '1' '<|im_end|>'"]
    prompts = [len("user\n") + len("assistant\n") + 4 + len(text) for text in ("one?", "two?x[2J", " one? ")]
    assert any(re.fullmatch(rf"train: prompts in tokens: {prompts[0]} to .*", line) for line in lines)
    at = next(n for n, line in enumerate(lines) if line.startswith("too long for"))
    assert lines[at].endswith(
        "rollout.max_sequence_tokens = 60, rollout.max_response_tokens = 20 (task.too_long = error)"
    )
    sequence, response = (f"rollout.max_{of}_tokens" for of in ("sequence", "response"))
    set_here = f"{sequence}: {sequence}=60 on the command line; {response}: {response}=20 on the command line"
    assert lines[at + 1] == f"  {set_here}"
    assert lines[at + 2] == "  train: 0 of 3 prompts that are to be answered, longer than 40"
    lines = say("told", model, "task.as_chat=true", "rollout=short").splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("too long for"))
    assert re.search(r"max_sequence_tokens: .*short.yaml:\d+; .*max_response_tokens: .*short.yaml:\d+$", lines[at + 1])
    out = say("told", model, "task.as_chat=true", f"{sequence}=60")
    assert f"{response}: the default; give those of your run: {sequence}=N or experiment=NAME\n" in out


def test_pairs_are_measured_by_their_longer_side(say: Any, model: str) -> None:
    lines = say("pairs", model, "task.as_chat=true", "rollout.max_sequence_tokens=40").splitlines()
    assert "train: rejected answers in tokens: 31 to 31, half of them up to 31, 95 % up to 31" in lines
    assert "  train: 3 of 3 prompts with their answers, longer than 40" in lines


def test_only_the_first_rows_if_so_asked(say: Any) -> None:
    out = say("told", "--rows", "2")
    assert "train: 5 rows, of which the first 2 are read (--rows 0 reads all)" in out
    assert "held_out: 2 rows\n" in out and "no rows repeat" in out


def test_a_task_of_ones_own_module_and_its_options(say: Any) -> None:
    out = say("addition", "task.options.max_operand=9", "task.options.zero_pad=false")
    assert "task: addition\n" in out and re.search(r"\| [0-9]\+[0-9]=\n", out)
    assert "task: addition\n" in say("experiment=addition", "actor.model.path=''")


FORMATS: dict[str, tuple[dict[str, Any], str]] = {
    "verl": (
        {"prompt": [{"role": "user", "content": "1+4?"}], "reward_model": {"ground_truth": "5"}, "data_source": "sums"},
        "5",
    ),
    "trl": ({"prompt": "1+4?", "chosen": "5", "rejected": "6"}, "5"),
    "openrlhf": ({"input": "1+4?", "output": "5"}, "5"),
    "gsm8k": ({"question": "1+4?", "answer": "1+4=5\n#### 5"}, "#### 5"),
    "alpaca": ({"instruction": "1+4?", "output": "5"}, "5"),
    "sharegpt": ({"conversations": [{"from": "human", "value": "1+4?"}, {"from": "gpt", "value": "5"}]}, "5"),
    "messages": ({"messages": [{"role": "user", "content": "1+4?"}, {"role": "assistant", "content": "5"}]}, "5"),
}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_file_of_each_format(name: str, say: Any) -> None:
    row, answer = FORMATS[name]
    other = json.loads(json.dumps(row).replace("1+4", "2+3"))
    Path("my rows.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(other)}\n{{\n")
    lines = say("my rows.jsonl").splitlines()
    assert lines[0].startswith(f"task: rows, rows in the format {name} ({', '.join(row)[:5]}")
    at = lines.index("  prompt")
    assert lines[at + 1].endswith(("1+4?", "2+3?")) and f"    | {answer}" in lines
    assert ("  rejected answer" in lines) == (name == "trl")
    assert lines[lines.index("columns of train") + 1].split()[0] == next(iter(row))
    assert any(
        "cannot be used (task.malformed = error): not JSON; the first: my rows.jsonl:3: not JSON" in line
        for line in lines
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "name a file of rows, a task, or settings that do"),
        (["told", "a", "b"], "'b' is one too many"),
        (["told", "--rows", "-1"], "--rows -1: a whole number of at least 0"),
        (["tolld"], "tolld: there is no such file, and no such task; tasks are addition"),
        (["told", "no_model"], "no_model/tokenizer.json does not exist"),
        (["told", "some/model@main"], "some/model@main cannot be had from the hub"),
        (["told", "task.to_long=drop"], "task.to_long: no such key; did you mean task.too_long?"),
        (["addition", "task.options.max=3"], "options of task 'addition': max: no such option"),
        (["addition", "task.as_chat=maybe"], "task.as_chat"),
        (["told", "task.name=x"], "no task is named 'x'"),
    ],
)
def test_bad_arguments_are_one_clear_error(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert main(["data", *arguments]) == 2
    except SystemExit as end:
        assert end.code == 2
    out, err = capsys.readouterr()
    assert out == "" and line in err and "Traceback" not in err
