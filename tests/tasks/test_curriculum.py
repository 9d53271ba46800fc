"""Curricula: the field that rows are sorted by, and the order of a run that has one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from hybridflow.config.schema import CurriculumConfig, Malformed, TooLong
from hybridflow.errors import DataError
from hybridflow.tasks import Example, Prompts, Task
from hybridflow.tasks.curriculum import level_of
from hybridflow.tasks.fitted_task import FittedTask, Limits


class Levels(Task):
    """Rows with the metadata given."""

    grader = "exact"

    def __init__(self, tokenizer: Any, *levels: Any) -> None:
        super().__init__(tokenizer)
        self.levels = levels

    def size(self, split: str) -> int:
        return len(self.levels)

    def example(self, split: str, index: int) -> Example:
        return Example("1+1=" if index else "1+1+1=", "2", index, metadata={"level": self.levels[index]})


def build_order(tokenizer: PreTrainedTokenizerFast, *levels: Any, tokens: int = 20, **settings: Any) -> Prompts:
    sort = CurriculumConfig(**{"by": "level", **settings})
    task = Levels(tokenizer, *levels)
    fitted = FittedTask(task, Limits(tokens, 2), TooLong.drop, {"train": "rows"}, Malformed.error, sort)
    return Prompts(fitted, "train", fitted.size("train"), seed=1)


def levels_drawn(prompts: Prompts, draw: int) -> list[Any]:
    return [prompts.task.example("train", row).metadata["level"] for row in prompts.at(draw).tolist()]


def test_each_epoch_goes_from_easy_to_hard(digits: PreTrainedTokenizerFast) -> None:
    for draw in range(3):
        assert levels_drawn(build_order(digits, 3, 1, 2.5, 1), draw) == [1, 1, 2.5, 3]
        assert levels_drawn(build_order(digits, 3, 1, 2.5, 1, descending=True), draw) == [3, 2.5, 1, 1]
        words = build_order(digits, "hard", "easy", "easy", levels=["easy", "hard"])
        assert levels_drawn(words, draw) == ["easy", "easy", "hard"]


def test_rows_of_a_level_are_shuffled_anew_each_epoch(digits: PreTrainedTokenizerFast) -> None:
    prompts = build_order(digits, *[1] * 20)
    assert prompts.at(0).tolist() != prompts.at(1).tolist()


def test_a_pool_grows(digits: PreTrainedTokenizerFast) -> None:
    prompts = build_order(digits, 4, 3, 2, 1, pools=2)
    drawn = [level for draw in range(3) for level in levels_drawn(prompts, draw)]
    assert sorted(drawn[:2]) == [1, 2] and sorted(drawn[2:6]) == sorted(drawn[6:10]) == [1, 2, 3, 4]


def test_rows_that_are_left_out_are_not_asked(digits: PreTrainedTokenizerFast) -> None:
    assert levels_drawn(build_order(digits, "long", 2, 1, tokens=7), 0) == [1, 2]


def test_a_row_is_asked_once(digits: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = build_order(digits, 2, 1)
    monkeypatch.setattr(Levels, "example", None)
    assert (Prompts(prompts.task, "train", 2, seed=1).at(5) == prompts.at(5)).all()


@pytest.mark.parametrize(
    ("level", "settings", "line"),
    [
        ("hard", {}, "'level' is 'hard', and task.curriculum.by sorts by a number; list its values"),
        (None, {}, "'level' is None, and"),
        (True, {}, "'level' is True, and"),
        (
            "worse",
            {"levels": ["easy", "hard"]},
            "'level' is 'worse', which is not in task.curriculum.levels: easy, hard",
        ),
        (1, {"by": "difficulty"}, "it has no 'difficulty' among its metadata, .*it has level"),
        (1, {"by": "level.of"}, "it has no 'level.of' among its metadata"),
    ],
)
def test_a_row_without_a_level_is_named(
    level: Any, settings: dict[str, Any], line: str, digits: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(DataError, match=f"row 0 of split 'train': {line}"):
        build_order(digits, level, **settings)


@pytest.mark.parametrize("level", [float("nan"), 10**400, True, "3", [1], None])
def test_what_is_no_finite_number_is_no_level(level: Any) -> None:
    with pytest.raises(ValueError, match=r"'level' is .*, and task.curriculum.by sorts by a number"):
        level_of({"level": level}, CurriculumConfig(by="level"))


def test_a_field_may_stand_in_another() -> None:
    inside = {"extra_info": {"level": np.int64(3)}}
    assert level_of(inside, CurriculumConfig(by="extra_info.level")) == 3
    assert level_of({"extra_info.level": 2, **inside}, CurriculumConfig(by="extra_info.level")) == 2
