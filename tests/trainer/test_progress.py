"""What a run says of itself at its end, and what a validation says of grades."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from hybridflow.config.schema import Config
from hybridflow.errors import ConfigError
from hybridflow.losses.policy_losses import policy_losses
from hybridflow.trainer import step_words
from hybridflow.trainer.answer_statistics import Answers, statistics
from hybridflow.trainer.loop import _learns_by_advantages
from hybridflow.trainer.progress import Learning, Progress

PLANNED = 4


def after(*steps: dict[str, float], learner: str = "actor") -> Progress:
    """The progress of a run whose steps measured this."""
    progress = Progress()
    for metrics in steps:
        progress.take_in(metrics, learner, PLANNED)
    return progress


def updates(role: str = "actor", *, skipped: float = 0.0, norm: float = 1.0) -> dict[str, float]:
    return {f"{role}/updates": PLANNED, f"{role}/skipped_steps": skipped, f"{role}/grad_norm": norm}


NOTHING_KEPT = {"rollout/kept_rows": 0.0}
FLAT = updates(norm=0.0)
SKIPPED = updates(skipped=1.0, norm=math.nan)


@pytest.mark.parametrize(
    "progress",
    [
        Progress(),
        after(updates()),
        after(updates(), FLAT, FLAT),
        after(updates(), SKIPPED),
        after(updates(skipped=0.5, norm=math.nan)),
        after(updates("critic")),
        after(updates(), updates("cost_critic", norm=0.0)),
        after(updates(), NOTHING_KEPT),
        after({"mine/learned": 1.0}),
    ],
    ids=[
        "no-step",
        "sound",
        "some-flat",
        "half-skipped",
        "half-of-each",
        "warm-up",
        "nothing-cost",
        "half-kept",
        "own",
    ],
)
def test_a_run_that_may_have_learned_has_no_fault(progress: Progress) -> None:
    assert progress.fault("actor") is None


@pytest.mark.parametrize(
    ("progress", "told"),
    [
        (after(FLAT, FLAT), "the loss of the actor had no gradient in any of 8 updates"),
        (after(SKIPPED, SKIPPED, updates()), "8 of 12 updates of the actor changed nothing"),
        (after(updates(), updates("critic", skipped=0.75)), "3 of 4 updates of the critic changed nothing"),
        (after(NOTHING_KEPT, NOTHING_KEPT, updates()), "8 of 12 updates of the actor changed nothing"),
        (after(NOTHING_KEPT), "4 of 4 updates of the actor changed nothing"),
        (after(updates() | NOTHING_KEPT | {"actor/skipped_steps": 1.0}), "4 of 4 updates of the actor"),
    ],
    ids=["flat", "skipped", "critic", "filtered-out", "all-filtered-out", "all-grades-failed"],
)
def test_a_run_that_cannot_have_learned_says_why(progress: Progress, told: str) -> None:
    assert (progress.fault("actor") or "").startswith(told)


IDLE = updates(norm=1e-9) | {"critic/advantages_max": 0.0, "critic/advantages_min": 0.0}


def test_a_gradient_without_advantages_is_rounding_unless_the_loss_has_more() -> None:
    """As of GRPO's KL to the model that it began with, where all rewards are equal."""
    assert (after(IDLE, IDLE).fault("actor") or "").startswith("the loss of the actor had no gradient in any of 8")
    assert after(IDLE, updates()).fault("actor") is None
    assert after(IDLE | {"critic/advantages_max": 0.5}).fault("actor") is None
    assert after(IDLE | {"actor/nll": 2.0}).fault("actor") is None, "supervised steps in the flow learn all the same"
    with_entropy = Progress()
    with_entropy.take_in(IDLE, "actor", PLANNED, by_advantages=False)
    assert with_entropy.fault("actor") is None
    assert after(IDLE | {"actor/nll": 1.2}).fault("actor") is None, "a supervised step learns without advantages"


def test_of_a_loss_that_is_not_ours_only_its_gradient_speaks() -> None:
    config = Config()
    assert _learns_by_advantages(config)

    @policy_losses.register("outcome_test_own")
    def own(inputs: object) -> object: ...

    config.algorithm.policy_loss.name = "outcome_test_own"
    assert not _learns_by_advantages(config)


def test_the_counts_go_on_where_a_checkpoint_left_them() -> None:
    before = after(SKIPPED, SKIPPED)
    saved = json.loads(json.dumps(asdict(before)))
    resumed = Progress(learning={role: Learning(**found) for role, found in saved["learning"].items()})
    assert resumed == Progress(learning=before.learning)
    resumed.take_in(updates(), "actor", PLANNED)
    assert (resumed.fault("actor") or "").startswith("8 of 12")


def of_grades(grades: np.ndarray, right: float) -> dict[str, float]:
    """Statistics of one answer to each question."""
    return {name: value for name, value in statistics(Answers(grades, 1, right)).items() if not name.endswith("_se")}


def test_accuracy_is_the_share_that_is_right_and_not_the_mean() -> None:
    found = of_grades(np.array([1.0, 0.5, 0.5, 0.0, np.nan], dtype=np.float32), 1.0)
    assert found == {"accuracy": 0.25, "mean_grade": 0.5, "failed_grades": 1}


def test_what_is_right_may_be_another_grade() -> None:
    tens = np.array([10, 9.5, 3], dtype=np.float32)
    assert of_grades(tens, 10)["accuracy"] == pytest.approx(1 / 3)
    assert of_grades(np.array([0.9, 0.1], dtype=np.float32), 0.9)["accuracy"] == 0.5, "as float32 has it"


def test_without_any_grade_nothing_is_known() -> None:
    found = of_grades(np.array([np.nan], dtype=np.float32), 1.0)
    assert math.isnan(found["accuracy"]) and math.isnan(found["mean_grade"]) and found["failed_grades"] == 1


@pytest.mark.parametrize(
    ("measured", "told"),
    [
        ({}, ""),
        ({"reward/failed_grades": 3.0}, "; 3 grades failed"),
        ({"rollout/masked_rows": 8.0}, "; loss_mask leaves 8 of them no token"),
    ],
)
def test_a_step_that_had_nothing_to_learn_from_says_why(measured: dict[str, float], told: str) -> None:
    found = step_words.nothing_left(Config(), {"rollout/rows": 8.0, **measured})
    assert found == f"none of its 8 rows was left to learn from{told}"


def test_the_best_validation_is_the_first_of_equal_ones_and_none_before_the_first_step() -> None:
    progress = Progress()
    for steps, value in ((0, 0.9), (10, 0.5), (20, 0.7), (30, 0.7), (40, math.nan), (50, 0.6)):
        progress.steps = steps
        progress.compare_best("accuracy", {"accuracy": value})
    assert (progress.best_steps, progress.best) == (20, 0.7)


def test_of_a_loss_the_smallest_is_best() -> None:
    progress = Progress()
    for steps, value in ((10, 0.5), (20, 0.3), (30, 0.4)):
        progress.steps = steps
        progress.compare_best("loss", {"loss": value})
    assert (progress.best_steps, progress.best) == (20, 0.3)


def test_a_metric_that_no_validation_measures_is_named_with_those_that_it_does() -> None:
    with pytest.raises(ConfigError, match="keep_best: no validation of this run measures 'acuracy'; there is accuracy"):
        Progress().compare_best("acuracy", {"accuracy": 1.0})
