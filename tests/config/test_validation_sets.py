"""Sets of validations, which are written as settings of tasks are."""

from __future__ import annotations

from typing import Any

import pytest

from hybridflow.config import compose
from hybridflow.config.schema import TooLong
from hybridflow.config.validation_sets import problems, validation_sets
from hybridflow.preflight import setting_checks

COMPOSED = compose.compose("train", ["experiment=addition"])


def with_sets(**sets: Any) -> Any:
    config = COMPOSED.to_config()
    config.trainer.validation_sets = sets
    return config


def test_a_set_has_the_defaults_of_a_task() -> None:
    config = with_sets(big={"name": "addition", "options": {"max_operand": 20}, "too_long": "drop"})
    assert not list(problems(config)) and not setting_checks.problems(config)
    found = validation_sets(config)["big"]
    assert (found.name, found.options, found.too_long) == ("addition", {"max_operand": 20}, TooLong.drop)
    assert found.chat_template_kwargs == {}


def test_a_set_asks_as_the_run_does_unless_it_says_otherwise() -> None:
    config = with_sets(alike={"name": "rows"}, other={"name": "rows", "system_prompt": "", "too_long": "error"})
    config.task.system_prompt = "Be brief."
    config.task.as_chat = True
    config.task.too_long = TooLong.drop
    config.task.chat_template_kwargs = {"enable_thinking": False}
    config.task.curriculum.by = "level"
    alike, other = validation_sets(config).values()
    assert (alike.system_prompt, alike.as_chat, alike.too_long) == ("Be brief.", True, TooLong.drop)
    assert alike.chat_template_kwargs == {"enable_thinking": False}
    assert (alike.options, alike.curriculum.by) == ({}, "")
    assert (other.system_prompt, other.as_chat, other.too_long) == ("", True, TooLong.error)


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("a/b", {"name": "addition"}, "trainer.validation_sets: 'a/b' is to be a part of metrics' names"),
        ("big", "addition", "trainer.validation_sets.big: 'addition' given; settings of a task were expected"),
        ("big", {"options": {}}, "settings of a task were expected, such as {name: addition}"),
        ("big", {"name": "addition", "to_long": "drop"}, "trainer.validation_sets.big: to_long: Key 'to_long' not in"),
        ("big", {"name": "additoin"}, "trainer.validation_sets.big.name: no task is named 'additoin'"),
        ("big", {"name": "addition", "options": {"max": 1}}, "trainer.validation_sets.big.options.max: "),
    ],
)
def test_a_set_that_cannot_be_is_named(name: str, given: Any, told: str) -> None:
    (line,) = setting_checks.problems(with_sets(**{name: given}))
    assert told in line


@pytest.mark.parametrize(
    ("metric", "known"),
    [
        *(("accuracy", True), ("pass@4", True), ("big/mean_grade", True), ("accuracy/hard", True), ("", True)),
        *(("acc", False), ("big/acc", False), ("validation/accuracy", False), ("small/accuracy", False)),
    ],
)
def test_the_metric_of_the_best_checkpoint_is_one_that_validations_have(metric: str, known: bool) -> None:
    config = with_sets(big={"name": "addition"})
    config.trainer.keep_best = metric
    told = [line for line in setting_checks.problems(config) if line.startswith(f"trainer.keep_best: {metric!r} given")]
    assert len(told) == (not known)


def test_several_greedy_answers_are_all_the_same() -> None:
    config = with_sets()
    config.trainer.validation_samples = 4
    (line,) = setting_checks.problems(config)
    assert line.startswith("trainer.validation_samples: 4 answers to a question are all the same")
    config.trainer.validation_temperature = 1.0
    assert not setting_checks.problems(config)
