"""Stories: the answer follows from the words, and the splits share no numbers."""

from __future__ import annotations

import re

import pytest
from transformers import PreTrainedTokenizerFast

from hybridflow.tasks import Example
from hybridflow.tasks.word_sums import WordSums


def text_of(example: Example) -> str:
    (message,) = example.prompt
    assert not isinstance(message, str) and message["role"] == "user"
    return message["content"]


def numbers_in(example: Example) -> tuple[int, ...]:
    return tuple(sorted(int(n) for n in re.findall(r"\d+", text_of(example))))


def test_answers_follow_from_the_story(chat: PreTrainedTokenizerFast) -> None:
    task = WordSums(chat)
    kinds = {"sum": 0, "difference": 0}
    for index in range(500):
        example = task.example("train", index)
        low, high = numbers_in(example)
        kind = "difference" if re.search(r" left\?| still ", text_of(example)) else "sum"
        kinds[kind] += 1
        assert int(example.answer) == (high - low if kind == "difference" else high + low), text_of(example)
    assert kinds["difference"] / 500 == pytest.approx(1 / 3, abs=0.08)


def test_no_placeholder_is_left_and_people_differ(chat: PreTrainedTokenizerFast) -> None:
    task = WordSums(chat)
    texts = [text_of(task.example("train", i)) for i in range(300)]
    assert all("{" not in text and text.endswith("Answer with just the number.") for text in texts)
    given = [m.groups() for text in texts if (m := re.search(r"(\w+) gives (\w+) ", text))]
    assert given and all(giver != taker for giver, taker in given)


def test_held_out_numbers_are_nowhere_else(chat: PreTrainedTokenizerFast) -> None:
    task = WordSums(chat, max_operand=30, train_rows=1500, held_out_rows=300, warmup_rows=100)
    seen = {
        split: {numbers_in(task.example(split, i)) for i in range(task.size(split))} for split in ("train", "held_out")
    }
    assert len(seen["held_out"]) > 20
    assert not seen["train"] & seen["held_out"]
    assert all(2 <= n <= 30 for pairs in seen.values() for pair in pairs for n in pair)


def test_warmup_is_the_first_of_train(chat: PreTrainedTokenizerFast) -> None:
    task = WordSums(chat)
    assert [task.example("warmup", i) for i in range(20)] == [task.example("train", i) for i in range(20)]


def test_sums_only(chat: PreTrainedTokenizerFast) -> None:
    task = WordSums(chat, differences=False)
    for index in range(200):
        example = task.example("train", index)
        assert int(example.answer) == sum(numbers_in(example))


def test_prompts_are_in_the_tokenizers_own_chat_form(chat: PreTrainedTokenizerFast) -> None:
    task = WordSums(chat)
    prompt = chat.decode(task.rows("train", [0]).ragged("prompt_ids")[0].tolist())
    assert prompt == f"<user>{text_of(task.example('train', 0))}\n<assistant>"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_operand": 2}, "max_operand is 2, a number from 3"),
        ({"train_rows": 10, "warmup_rows": 11}, "warmup at most train"),
        ({"held_out_rows": 0}, "each must be 1 or more"),
    ],
)
def test_options_out_of_range(options: dict[str, int], message: str, chat: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match=message):
        WordSums(chat, **options)
