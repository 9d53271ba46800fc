"""Grades: what one is, what becomes of one that is not, and what is left to learn from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from hybridflow.batch import Batch, Ragged
from hybridflow.config.schema import Config
from hybridflow.observe.metrics import Metrics
from hybridflow.parallel.layout import Layout
from hybridflow.tasks.addition import ALPHABET
from hybridflow.tasks.grades import graded, number, only_learnable, over_learnable, settled, too_many_failed
from hybridflow.tasks.tokenizer import char_tokenizer
from hybridflow.workers import Context
from hybridflow.workers.reward import RewardWorker
from tests.tasks import child_graders

GOOD = [
    True,
    1,
    1.0,
    np.float64(1),
    np.int8(1),
    np.bool_(True),
    np.array(1),
    torch.tensor(1.0),
    Fraction(1),
    Decimal(1),
]
BAD = [*child_graders.NONE, Batch()]


@pytest.mark.parametrize("grade", GOOD, ids=lambda grade: type(grade).__name__)
def test_a_grade_is_a_number_of_any_kind(grade: object) -> None:
    assert number(grade) == 1.0


@pytest.mark.parametrize("grade", BAD, ids=lambda grade: type(grade).__name__)
def test_anything_else_is_none(grade: object) -> None:
    with pytest.raises(ValueError, match=r"of type|no finite number in float32"):
        number(grade)


def test_a_grade_is_what_float32_makes_of_it() -> None:
    assert number(0.1) == np.float32(0.1) and number(3.4028235e38) == np.finfo(np.float32).max


def build_config(folder: Path, grader: str, share: float) -> Config:
    char_tokenizer(ALPHABET).save_pretrained(folder)
    config = Config()
    config.actor.model.path, config.reward.grader, config.reward.max_failed_share = str(folder), grader, share
    return config


def build_responses(*texts: str, answer: str = "12") -> Batch:
    ids = char_tokenizer(ALPHABET)(list(texts), add_special_tokens=False)["input_ids"]
    return Batch(response_ids=Ragged.of(ids, np.int64), answer=np.array([answer] * len(texts), dtype=object))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RewardWorker]:
    """A worker whose grader does as the answers say; all tests here share its process."""
    folder = tmp_path_factory.mktemp("odd")
    worker = RewardWorker(Context(build_config(folder, "odd", 0.0), Layout(), 0, "reward"))
    yield worker
    worker.close()


def rewards_of(worker: RewardWorker, answer: str, share: float) -> tuple[Batch, Metrics]:
    """What a rank makes of four responses, one of which the grader cannot grade."""
    rows = build_responses("12", "3", "", "12", answer=answer)
    config = worker.context.config
    config.reward.max_failed_share = share
    metrics = Metrics()
    return settled(worker.compute_reward(rows), rows, config, metrics), metrics


TROUBLES = [pytest.param(str(n), id=type(trouble).__name__) for n, trouble in enumerate(child_graders.TROUBLES)]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_one_that_fails_ends_the_run_unless_some_may(odd: RewardWorker, trouble: str) -> None:
    with pytest.raises(ValueError, match=rf"grader 'odd' .*the response '3' \(answer '{trouble}'\)"):
        rewards_of(odd, trouble, 0.0)
    found, metrics = rewards_of(odd, trouble, 0.5)
    rewards = found.dense("rewards")
    assert rewards.dtype == np.float32 and np.array_equal(rewards, [1, np.nan, 1, 1], equal_nan=True)
    assert metrics["reward/mean"] == 1.0 and metrics["reward/min"] == 1.0, "it is never a reward of 0"
    assert (metrics["reward/failed_grades"], metrics["reward/failed_share"]) == (1, 0.25)


def test_the_error_ends_with_the_cause_and_shows_the_end_of_no_long_text(odd: RewardWorker) -> None:
    raised = next(n for n, trouble in enumerate(child_graders.TROUBLES) if isinstance(trouble, RuntimeError))
    with pytest.raises(ValueError, match=r"RuntimeError: the grader lost its marbles$") as told:
        rewards_of(odd, str(raised), 0.0)
    assert "child_graders.py" in str(told.value.__cause__), "the grader's own traceback is shown"
    with pytest.raises(ValueError, match="marbles") as told:
        rewards_of(odd, "long", 0.0)
    assert len(str(told.value)) < 1000 and "\x1b" not in str(told.value)


@pytest.mark.parametrize(
    ("column", "given"),
    [
        ("rewards", np.array([1.0, np.inf, 0.0, 1.0])),
        ("rewards", np.array([1.0, 1e39, 0.0, 1.0])),
        ("rewards", np.array([1.0, None, 0.0, True], dtype=object)),
        ("baseline_rewards", np.array([1.0, "no", 0.0, 1], dtype=object)),
        ("costs", np.array([1.0, np.nan, 0.0, 1.0], dtype=np.float32)),
    ],
)
def test_grades_of_a_worker_of_the_users_are_checked_alike(column: str, given: np.ndarray, tmp_path: Path) -> None:
    """A model of rewards or costs, too."""
    config, rows = build_config(tmp_path, "exact", 0.0), build_responses("12", "3", "", "12")
    with pytest.raises(ValueError, match=rf"^{column} of row 1: .*\(response '3', answer '12'\)"):
        settled(Batch(**{column: given}), rows, config, Metrics())
    config.reward.max_failed_share = config.cost.max_failed_share = 0.25
    found = settled(Batch(**{column: given}), rows, config, Metrics()).dense(column)
    assert found.dtype == np.float32 and np.array_equal(found, [1, np.nan, 0, 1], equal_nan=True)


@pytest.mark.parametrize("column", ["rewards", "baseline_rewards", "costs"])
def test_a_failed_environment_leaves_no_grade_whoever_grades(column: str, tmp_path: Path) -> None:
    config, rows = build_config(tmp_path, "exact", 0.0), build_responses("12", "3")
    rows |= Batch(environment_failure=np.array(["", "RuntimeError: the weather"], dtype=object))
    given = Batch(**{column: np.array([1.0, 0.0])})
    with pytest.raises(ValueError, match=rf"^{column} of row 1: its environment failed: RuntimeError: the weather \("):
        settled(given, rows, config, Metrics())
    config.reward.max_failed_share = config.cost.max_failed_share = 0.5
    metrics = Metrics()
    found = settled(given, rows, config, metrics).dense(column)
    assert np.array_equal(found, [1, np.nan], equal_nan=True), "no reward of 0"
    assert sum(value for name, value in metrics.items() if name.endswith("failed_grades")) == 1


@pytest.mark.parametrize("given", [np.array([0, 1]), np.array([False, True]), np.array([0.0, 1.0], dtype=np.float64)])
def test_numbers_of_any_kind_become_float32(given: np.ndarray) -> None:
    found = settled(Batch(rewards=given), None, Config(), Metrics()).dense("rewards")
    assert found.dtype == np.float32 and found.tolist() == [0.0, 1.0]


def test_other_columns_and_values_pass() -> None:
    rows, metrics = Batch(values=np.array([np.nan])), Metrics()
    assert settled(rows, None, Config(), metrics) is rows
    assert settled(None, None, Config(), metrics) is None and not metrics


def rollout() -> Batch:
    ids = Ragged.of([[5, 6], [7], [], [8, 9, 10]], np.int64)
    return Batch(response_ids=ids, rewards=np.array([1, np.nan, 0, 2], dtype=np.float32), n=np.arange(4))


def test_a_row_is_learned_from_if_all_of_its_grades_are_there() -> None:
    rows = rollout()
    assert graded(rows).tolist() == [True, False, True, True]
    assert only_learnable(rows).dense("n").tolist() == [0, 2, 3]
    more = rows | Batch(costs=np.array([np.nan, 0, 0, 0]), baseline_rewards=np.array([0, 0, 0, np.nan]))
    assert only_learnable(more).dense("n").tolist() == [2]
    whole = rows.select([0, 2])
    assert only_learnable(whole) is whole
    assert graded(rows.select_columns(["n"])).all()


def test_an_estimate_is_made_without_them_and_is_zero_there() -> None:
    seen: list[list[int]] = []

    def estimate(rows: Batch) -> Batch:
        seen.append(rows.dense("n").tolist())
        return Batch(advantages=rows.ragged("response_ids").like(rows.ragged("response_ids").values / 2))

    found = over_learnable(rollout(), estimate).ragged("advantages")
    assert [row.tolist() for row in found] == [[2.5, 3.0], [0.0], [], [4.0, 4.5, 5.0]]
    none = over_learnable(rollout().select([1]), estimate).ragged("advantages")
    assert none.values.tolist() == [0.0] and seen == [[0, 2, 3], []], "a rank without any is called too"


def test_more_than_may_fail_are_told() -> None:
    config = Config()
    config.reward.max_failed_share = 0.25
    metrics = {"reward/failed_share": 0.25, "reward/failed_grades": 2.0}
    assert too_many_failed(config, metrics) is None and too_many_failed(config, {}) is None
    told = too_many_failed(config, {"reward/failed_share": 0.5, "reward/failed_grades": 4.0})
    assert told is not None and told.startswith("4 grades failed") and "reward.max_failed_share allows 25.0%" in told
    baseline = {"reward/baseline_failed_share": 0.5, "reward/baseline_failed_grades": 1.0}
    assert "reward/baseline_failed_grades" in (too_many_failed(config, metrics | baseline) or "")
    costs = {"cost/failed_share": 0.1, "cost/failed_grades": 1.0}
    assert "cost.max_failed_share allows 0.0%" in (too_many_failed(replace(config), metrics | costs) or "")
