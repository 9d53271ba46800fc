"""Mixtures: rows of several tasks, their shares in training, and what is no source."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from hybridflow.config.schema import TooLong
from hybridflow.errors import ConfigError, DataError
from hybridflow.tasks import Prompts, Task, build
from hybridflow.tasks.fitted_task import FittedTask, Limits
from hybridflow.tasks.mixture import in_turns, source_problems

SMALL = {"task": "addition", "max_operand": 5}
LARGE = {"task": "addition_pairs", "max_operand": 20}
WEIGHTED = {"small": {**SMALL, "weight": 0.75}, "large": {**LARGE, "weight": 0.25}}


def build_mixture(tokenizer: PreTrainedTokenizerFast, sources: dict[str, Any]) -> Task:
    return build("mixture", tokenizer, {"sources": sources})


def test_rows_are_the_sources_own_and_name_them(digits: PreTrainedTokenizerFast) -> None:
    task = build_mixture(digits, {"small": SMALL, "large": LARGE})
    own = {
        name: build(given["task"], digits, {"max_operand": given["max_operand"]})
        for name, given in {"small": SMALL, "large": LARGE}.items()
    }
    for split in ("train", "held_out", "warmup"):
        assert task.size(split) == sum(one.size(split) for one in own.values())
        batch = task.rows(split, np.arange(task.size(split)))
        for name, one in own.items():
            mine = batch.dense("source") == name
            expected = one.rows(split, np.arange(one.size(split)))
            assert batch.dense("answer")[mine].tolist() == expected.dense("answer").tolist()
            ids = [f"{name}/{id}" for id in expected.dense("sample_id")]
            assert batch.dense("sample_id")[mine].tolist() == ids


def test_its_raw_rows_are_the_sources(digits: PreTrainedTokenizerFast) -> None:
    task = build_mixture(digits, {"small": SMALL})
    assert task.rows_origin() == "of small" and task.raw_row("train", 3) == task.sources["small"].raw_row("train", 3)


def test_training_takes_the_shares_and_a_validation_has_them_too(digits: PreTrainedTokenizerFast) -> None:
    task = build_mixture(digits, WEIGHTED)
    prompts = Prompts(task, "train", 8, seed=1)
    for draw in range(40):
        assert (prompts.batch(draw).dense("source") == "small").sum() == 6
    assert (task.rows("warmup", np.arange(4)).dense("source") == "small").sum() == 3
    small, large = prompts.shares()
    count = build("addition", digits, {"max_operand": 5}).size("train")
    assert small == (
        f"source small: 0.75 of the rows that training takes; its {count} rows come round every {count / 6:.1f} draws"
    )
    assert large.startswith("source large: 0.25 of")
    assert [*Prompts(build_mixture(digits, {"small": SMALL}), "train", 8, seed=1).shares()] == []


def test_without_weights_an_epoch_is_all_rows_once(digits: PreTrainedTokenizerFast) -> None:
    task = build_mixture(digits, {"small": SMALL, "large": LARGE})
    rows = Prompts(task, "train", task.size("train"), seed=1).at(0)
    assert sorted(rows.tolist()) == list(range(task.size("train")))


def test_what_does_not_fit_is_left_out_of_its_source(digits: PreTrainedTokenizerFast) -> None:
    fitted = FittedTask(build_mixture(digits, WEIGHTED), Limits(8, 4), TooLong.drop, {"train": "rows"})
    drawn = Prompts(fitted, "train", 8, seed=1).batch(5)
    assert drawn.lengths("prompt_ids").max() <= 4 and (drawn.dense("source") == "small").sum() == 6


def test_turns_are_fair_from_the_first_row_on() -> None:
    even = in_turns([3, 6])
    assert even.source[:3].tolist() == [1, 0, 1] and even.row.tolist() == [0, 0, 1, 2, 1, 3, 4, 2, 5]
    assert in_turns([4, 2], [1, 1]).source.tolist() == [0, 1, 0, 1, 0, 0]
    assert in_turns([0, 2]).source.tolist() == [1, 1]


def test_preferences_are_those_of_sources_that_have_them(digits: PreTrainedTokenizerFast) -> None:
    pairs = build_mixture(digits, {"large": LARGE})
    assert "rejected_ids" in pairs.preferences("train", [0, 1]).columns
    with pytest.raises(DataError, match="source 'small': Addition has no preferences; leave it out of the mixture"):
        build_mixture(digits, {"small": SMALL}).preferences("train", [0])


def test_a_bad_row_names_its_source(digits: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    task = build_mixture(digits, {"small": SMALL})

    def broken(split: str, index: int) -> Any:
        raise DataError("data.jsonl:4: no prompt", reason="no prompt")

    monkeypatch.setattr(task.sources["small"], "example", broken)
    with pytest.raises(DataError, match=r"^source 'small': data.jsonl:4: no prompt") as told:
        task.rows("train", [0])
    assert told.value.reason == "no prompt"
    monkeypatch.setattr(task.sources["small"], "suspects", lambda split: [2])
    assert task.suspects("train") == [2]


@pytest.mark.parametrize(
    ("sources", "line"),
    [
        ({}, "sources: {} given; sources by name were expected"),
        ([SMALL], r"sources: \[.* given; sources by name were expected"),
        ({"a": "addition"}, "sources.a: 'addition' given; a task and its options were expected"),
        (
            {"a": {"task": "adition"}},
            "sources.a.task: 'adition' given; one of addition, addition_calls, ",
        ),
        ({"a": {"task": "mixture"}}, "sources.a.task: 'mixture' given; one of addition"),
        ({"a": {**SMALL, "max_opperand": 5}}, "sources.a.max_opperand: no such option; did you mean 'max_operand'?"),
        ({"a": {**SMALL, "max_operand": 5000}}, "sources.a.max_operand: 5000 given"),
        ({"a": {**SMALL, "weight": 1}, "b": SMALL}, "sources.b: it has no weight, and others have"),
        ({"a": {**SMALL, "weight": 0}}, "sources.a.weight: 0 given; a number above 0"),
        ({"a": {**SMALL, "weight": "1"}}, "sources.a.weight: '1' given; a number above 0"),
        ({"a": {**SMALL, "weight": 0.123456789}, "b": {**SMALL, "weight": 1}}, "sources: the weights .* fewer digits"),
    ],
)
def test_what_is_no_source_is_one_error(sources: Any, line: str, digits: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ConfigError, match=f"^task.options: {line}"):
        build_mixture(digits, sources)


def test_all_that_is_wrong_is_told_at_once() -> None:
    assert len([*source_problems({"a": {"task": "x"}, "b": {**SMALL, "digits": 1}, "c": 5})]) == 3
