"""Statistics of graded answers, against their definitions written naively."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.trainer.answer_statistics import (
    Answers,
    compare,
    majority_at,
    pass_at,
    question_means,
    sizes,
    standard_error,
    statistics,
)


def answers_of(rows: list[list[float]], keys: list[str] | None = None, sources: list[str] | None = None) -> Answers:
    grades = np.array(rows, dtype=np.float32)
    return Answers(grades.ravel(), grades.shape[1], 1.0, keys or (), sources or ())


@st.composite
def graded(draw: st.DrawFn) -> Answers:
    samples = draw(st.integers(1, 6))
    questions = draw(st.integers(1, 5))
    one = st.sampled_from([0.0, 0.5, 1.0, 1.5, math.nan])
    rows = draw(st.lists(st.lists(one, min_size=samples, max_size=samples), min_size=questions, max_size=questions))
    return answers_of(rows)


@given(graded(), st.integers(1, 6))
def test_pass_at_k_is_the_share_of_all_choices_of_k_answers_that_have_a_right_one(answers: Answers, k: int) -> None:
    for row, found in zip(answers.right, pass_at(answers, k), strict=True):
        known = row[np.isfinite(row)]
        choices = [max(choice) for choice in combinations(known, k)]
        if choices:
            assert found == pytest.approx(np.mean(choices))
        else:
            assert math.isnan(found)


@given(graded())
def test_accuracy_and_mean_grade_count_known_grades_only(answers: Answers) -> None:
    known = answers.grades[np.isfinite(answers.grades)]
    found = statistics(answers)
    assert found["failed_grades"] == len(answers.grades) - len(known)
    if not len(known):
        assert math.isnan(found["accuracy"])
        return
    assert found["accuracy"] == pytest.approx(np.mean(known >= 1))
    assert found["mean_grade"] == pytest.approx(known.astype(np.float64).mean())


def test_a_standard_error_is_of_questions_not_of_answers() -> None:
    answers = answers_of([[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0]])
    means = [1.0, 0.0, 0.5]
    expected = np.std(means, ddof=1) / math.sqrt(3)
    assert statistics(answers)["accuracy_se"] == pytest.approx(expected)
    assert standard_error(question_means(answers.right)) == pytest.approx(expected)
    assert "accuracy_se" not in statistics(answers_of([[1, 0]])), "one question says nothing of others"


def test_the_majority_votes_and_the_first_wins_a_tie() -> None:
    answers = answers_of([[0, 1, 1], [1, 0, 0], [0, 1, 0]], ["7", "8", "8", "8", "7", "7", "a", "b", "c"])
    assert majority_at(answers, 3).tolist() == [1.0, 0.0, 0.0]
    assert statistics(answers)["maj@3"] == pytest.approx(1 / 3)


def test_the_majority_of_fewer_is_a_mean_over_draws_of_them() -> None:
    answers = answers_of([[1, 1, 0, 0]], ["8", "8", "7", "7"])
    # Of six pairs, one is all right, one all wrong, and of the other four the first given wins, which is the right one.
    assert majority_at(answers, 2)[0] == pytest.approx(5 / 6, abs=0.08)
    assert majority_at(answers, 4)[0] == 1.0


def test_a_failed_grade_has_no_vote() -> None:
    answers = answers_of([[math.nan, 1], [0, 1]], ["7", "8", "7", "8"])
    assert math.isnan(majority_at(answers, 2)[0])
    assert statistics(answers)["maj@2"] == 0.0, "the other question's tie goes to what was given first"


@pytest.mark.parametrize(("samples", "expected"), [(1, []), (2, [2]), (3, [2, 3]), (8, [2, 4, 8]), (9, [2, 4, 8, 9])])
def test_sizes_double_up_to_all_samples(samples: int, expected: list[int]) -> None:
    assert sizes(samples) == expected


def test_sources_are_told_apart_where_there_are_several() -> None:
    found = statistics(answers_of([[1], [0], [1]], sources=["a", "b", "a"]))
    assert (found["accuracy/a"], found["accuracy/b"]) == (1.0, 0.0)
    assert found["accuracy"] == pytest.approx(2 / 3)
    alone = statistics(answers_of([[1], [0]], sources=["a", "a"]))
    assert "accuracy/a" not in alone


def test_models_that_differ_on_every_question_differ_for_sure() -> None:
    better = compare(answers_of([[0.0]] * 12), answers_of([[1.0]] * 12))
    assert (better.difference, better.questions) == (1.0, 12)
    assert better.p_value == pytest.approx(2 / 2**12), "all signs one way, or all the other"


def test_a_paired_test_finds_what_unpaired_errors_hide() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(400) < 0.5
    first = hard.astype(np.float32)
    second = first.copy()
    second[np.flatnonzero(~hard)[:20]] = 1.0
    found = compare(answers_of([[g] for g in first]), answers_of([[g] for g in second]))
    unpaired = math.hypot(*(statistics(answers_of([[g] for g in one]))["accuracy_se"] for one in (first, second)))
    assert found.difference == pytest.approx(0.05)
    assert found.error < unpaired / 3
    assert found.p_value < 0.001


@given(graded())
def test_a_model_is_like_itself(answers: Answers) -> None:
    found = compare(answers, answers)
    if found.questions:
        assert (found.difference, found.p_value) == (0.0, 1.0)


def test_questions_without_a_grade_on_one_side_are_not_compared() -> None:
    found = compare(answers_of([[1.0], [math.nan], [0.0]]), answers_of([[1.0], [1.0], [math.nan]]))
    assert found.questions == 1
