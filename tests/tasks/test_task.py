"""What every task gives: columns, errors, options; and what importing tasks costs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from hybridflow.batch import Ragged
from hybridflow.batch.batch import concat
from hybridflow.errors import ConfigError, DataError
from hybridflow.options import faults
from hybridflow.tasks import SPLITS, Example, PreferenceTask, Task, build, check_options, graders, tasks
from hybridflow.tasks.addition import ALPHABET
from hybridflow.tasks.tokenizer import char_tokenizer

# `addition_calls` has a warm-up of calls, for which a chat template needs a form.
OURS = [name for name in tasks if name not in ("rows", "addition_calls") and not faults(tasks.get(name), {})]


class Echo(Task):
    """Says the row's number again."""

    grader = "exact"

    def __init__(self, tokenizer, rows: int, scale: float = 1.0, shout: bool = False) -> None:
        super().__init__(tokenizer)
        self.count = rows

    def size(self, split: str) -> int:
        return self.count

    def example(self, split: str, index: int) -> Example:
        return Example(f"{index}=", str(index), 100 + index)


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tasks._components, "echo", Echo)


def test_rows_come_in_the_order_asked_for(digits: PreTrainedTokenizerFast) -> None:
    batch = Echo(digits, rows=20).rows("train", np.array([12, 3, 12]))
    assert batch.columns == ("prompt_ids", "answer", "sample_id")
    assert digits.batch_decode([r.tolist() for r in batch.ragged("prompt_ids")]) == ["12=", "3=", "12="]
    assert batch.dense("answer").tolist() == ["12", "3", "12"]
    assert batch.dense("sample_id").tolist() == [112, 103, 112]
    assert batch.ragged("prompt_ids").values.dtype == np.int64 and batch.dense("sample_id").dtype == object


@pytest.mark.parametrize(
    "sample_id", [-1, 0, 2**63, -(2**70), "gsm8k/7", "", np.int64(5), np.str_("x"), np.uint64(2**64 - 1)]
)
def test_a_sample_id_is_any_integer_or_string(sample_id: Any, digits: PreTrainedTokenizerFast) -> None:
    class Named(Echo):
        def example(self, split: str, index: int) -> Example:
            return Example("1=", "1", sample_id if index else "another")

    task = Named(digits, rows=2)
    (found,) = task.rows("train", [1]).dense("sample_id").tolist()
    assert found == sample_id and type(found) in (int, str)
    both = concat([task.rows("train", [0]), task.rows("train", [1])])
    assert both.dense("sample_id").tolist() == ["another", sample_id]


@pytest.mark.parametrize("sample_id", [None, 1.0, (1, 2), b"x"])
def test_what_is_no_sample_id_names_its_row(sample_id: Any, digits: PreTrainedTokenizerFast) -> None:
    class Named(Echo):
        def example(self, split: str, index: int) -> Example:
            return Example("1=", "1", sample_id)

    with pytest.raises(DataError, match=r"row 3 of split 'train': the sample_id is .*an integer or a string"):
        Named(digits, rows=9).rows("train", [3])


def test_supervised_rows_end_in_eos(digits: PreTrainedTokenizerFast) -> None:
    task = Echo(digits, rows=20)
    batch = task.supervised("warmup", [7, 15])
    responses = batch.ragged("response_ids")
    assert [r[-1] for r in responses] == [digits.eos_token_id] * 2
    assert digits.batch_decode([r[:-1].tolist() for r in responses]) == ["7", "15"]
    assert batch.columns == (*task.rows("warmup", [7]).columns, "response_ids")


@pytest.mark.parametrize("way", ["rows", "supervised", "preferences"])
def test_a_row_s_example_is_made_once(way: str, digits: PreTrainedTokenizerFast) -> None:
    asked = []

    class Counted(Echo, PreferenceTask):
        def example(self, split: str, index: int) -> Example:
            asked.append(index)
            return super().example(split, index)

        def rejected(self, split: str, index: int) -> str:
            return "0"

    task = Counted(digits, rows=20)
    for times in (1, 2):  # in another call it is made anew
        getattr(task, way)("train", [7, 15])
        assert asked == [7, 15] * times


def test_no_rows_have_the_same_columns_and_types(digits: PreTrainedTokenizerFast) -> None:
    some, none = Echo(digits, rows=20).supervised("train", [1]), Echo(digits, rows=20).supervised("train", [])
    assert none.rows == 0 and none.columns == some.columns
    for name in some.columns:
        a, b = some[name], none[name]
        assert type(a) is type(b)
        assert (a.values if isinstance(a, Ragged) else a).dtype == (b.values if isinstance(b, Ragged) else b).dtype


def test_a_split_or_row_that_is_not_there(digits: PreTrainedTokenizerFast) -> None:
    task = Echo(digits, rows=20)
    with pytest.raises(ValueError, match=r"'test'.*train, held_out, warmup"):
        task.rows("test", [0])
    for outside in (20, -1):
        with pytest.raises(IndexError, match=rf"row {outside} .* 0 to 19"):
            task.rows("train", [0, outside])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, r"KeyError: 'answer' \(.*test_task\.py:\d+\)"),
        ({"answer": "seven"}, r"invalid literal for int\(\).*'seven'"),
    ],
)
def test_whatever_a_task_trips_over_is_told_with_its_row(
    row: dict[str, str], said: str, digits: PreTrainedTokenizerFast
) -> None:
    class Parsed(Echo):
        def example(self, split: str, index: int) -> Example:
            fields = row if index == 7 else {"answer": "1"}
            return Example("1=", str(int(fields["answer"])), index)

    with pytest.raises(DataError, match=rf"^row 7 of split 'train': {said}$"):
        Parsed(digits, rows=20).rows("train", [3, 7])


def test_a_source_that_is_gone_is_not_blamed_on_a_row(digits: PreTrainedTokenizerFast) -> None:
    class Gone(Echo):
        def example(self, split: str, index: int) -> Example:
            raise FileNotFoundError("rows.jsonl")

    with pytest.raises(FileNotFoundError):
        Gone(digits, rows=20).rows("train", [3])


def test_chats_need_a_chat_template(digits: PreTrainedTokenizerFast, chat: PreTrainedTokenizerFast) -> None:
    messages = [{"role": "user", "content": "hello"}]
    with pytest.raises(ValueError, match="no chat template"):
        Echo(digits, rows=1).encode(messages)
    assert chat.decode(Echo(chat, rows=1).encode(messages)) == "<user>hello\n<assistant>"


def test_a_character_without_a_token_is_not_lost_in_silence(digits: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match=r"no tokens for \['a', 'é'\] in '1\+aé='"):
        Echo(digits, rows=1).encode("1+aé=")


def test_a_tokenizer_without_an_end(digits: PreTrainedTokenizerFast) -> None:
    endless = char_tokenizer(ALPHABET)
    endless.eos_token = None
    with pytest.raises(ValueError, match="no eos_token"):
        Echo(endless, rows=1).supervised("train", [0])


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "rows: must be given"),
        ({"rows": 3, "scales": 2.0}, "scales: no such option; did you mean 'scale'.*rows, scale=1.0, shout"),
        ({"rows": 3, "scale": "big"}, "scale: 'big' given, a number was expected"),
        ({"rows": 3, "shout": 1}, "shout: 1 given, of type int; bool was expected"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_options("echo", options)
    with pytest.raises(ConfigError, match=f"task.options: .*{message}"):
        build("echo", char_tokenizer(ALPHABET), options)


@pytest.mark.usefixtures("echo")
def test_options_that_are_right() -> None:
    check_options("echo", {"rows": 3, "scale": 2, "shout": True})
    assert build("echo", char_tokenizer(ALPHABET), {"rows": 3}).size("train") == 3


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(KeyError, match="did you mean 'addition'"):
        build("adition", char_tokenizer(ALPHABET), {})


@pytest.mark.parametrize("name", [name for name in OURS if name != "guess"])  # which an environment grades
def test_our_tasks(name: str, chat: PreTrainedTokenizerFast) -> None:
    """The invariants of `Task` for all that we ship."""
    task, again = build(name, chat, {}), build(name, chat, {})
    grader = graders.get(task.grader)
    for split in SPLITS:
        size = task.size(split)
        assert size > 0
        for index in {0, size // 2, size - 1}:
            example = task.example(split, index)
            assert example == again.example(split, index)
            assert grader(example.answer, example.answer) == 1.0
            assert grader("", example.answer) == 0.0


@pytest.mark.parametrize("name", OURS)
def test_sample_ids_name_questions(name: str, chat: PreTrainedTokenizerFast) -> None:
    """One question, one number, over all splits; and what is held out is nowhere else."""
    task = build(name, chat, {"wrong_answers": 1} if name in ("addition_pairs", "addition_sevens") else {})
    by_id: dict[int | str, str] = {}
    ids: dict[str, set[int | str]] = {}
    for split in SPLITS:
        examples = [task.example(split, i) for i in range(task.size(split))]
        ids[split] = {e.sample_id for e in examples}
        assert len(ids[split]) == len(examples)
        for e in examples:
            assert by_id.setdefault(e.sample_id, str(e.prompt)) == str(e.prompt)
    assert ids["warmup"] < ids["train"]
    assert not ids["held_out"] & ids["train"]


def test_light_workers_stay_light() -> None:
    code = """
import sys
from hybridflow.tasks import graders, tasks
assert {"exact", "last_number"} <= set(graders) and {"addition", "word_sums"} <= set(tasks)
print([m for m in ("torch", "transformers", "vllm", "ray", "megatron") if m in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (found.stdout.strip(), found.returncode) == ("[]", 0), found.stderr
