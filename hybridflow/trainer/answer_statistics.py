"""Statistics of graded answers: several to each question, of one model or of two on the same questions.

Questions are the sample: a standard error is of the mean over questions, whatever the number of answers to each, as
answers to one question are no independent draws (Miller 2024, arXiv 2411.00640, section 2.2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

MAJORITY_DRAWS = 200  # of k answers out of n, over which maj@k is a mean where k < n
SIGN_FLIPS = 10_000


@dataclass(frozen=True)
class Answers:
    """Grades of `samples` answers to each question, those of a question next to each other.

    Attributes:
        grades: [questions × samples] float32; NaN for one that failed, which no statistic counts.
        samples: answers to each question.
        right_grade: the smallest grade that is right.
        keys: what each answer comes to; equal ones are the same vote of a majority. Empty: nobody votes.
        sources: where each question is from; empty: they have no sources.
        unwritten: answers that the disk had no room for.
        reused: answers that were in the journal (`rollout.recovery=durable`).
    """

    grades: np.ndarray
    samples: int
    right_grade: float
    keys: Sequence[str] = ()
    sources: Sequence[str] = ()
    unwritten: int = 0
    reused: int = 0

    def __post_init__(self) -> None:
        assert self.samples >= 1 and len(self.grades) % self.samples == 0, (len(self.grades), self.samples)
        assert not self.keys or len(self.keys) == len(self.grades)
        assert not self.sources or len(self.sources) == self.questions

    @property
    def questions(self) -> int:
        """Number of questions."""
        return len(self.grades) // self.samples

    @property
    def by_question(self) -> np.ndarray:
        """Return the grades as [questions, samples]."""
        return self.grades.reshape(self.questions, self.samples)

    @property
    def right(self) -> np.ndarray:
        """Return [questions, samples] float64: 1 for a right answer, 0 for a wrong one, NaN for a failed grade."""
        grades = self.by_question
        return np.where(np.isfinite(grades), grades >= np.float32(self.right_grade), np.nan)

    def of_source(self, source: str) -> Answers:
        """Select the questions of one source."""
        chosen = np.flatnonzero(np.array(self.sources) == source)
        rows = (chosen[:, None] * self.samples + np.arange(self.samples)).ravel()
        keys = [self.keys[row] for row in rows] if self.keys else ()
        return Answers(self.grades[rows], self.samples, self.right_grade, keys, [source] * len(chosen))


def statistics(answers: Answers) -> dict[str, float]:
    """Summarize answers, and those of each source if there are several: `accuracy`, then `accuracy/SOURCE`.

    `accuracy` is the share of answers that are right and `mean_grade` the mean of the grades, each with its standard
    error (`_se`); `pass@k` and `maj@k`, for k = 2, 4, 8, … and the number of samples, are of k answers to a question.
    `failed_grades` counts those that are in none of them.
    """
    summary = _summary(answers)
    names = sorted(set(answers.sources))
    for source in names if len(names) > 1 else ():
        summary |= {f"{name}/{source}": value for name, value in _summary(answers.of_source(source)).items()}
    return summary


def _summary(answers: Answers) -> dict[str, float]:
    known = np.isfinite(answers.grades)
    failed = float(len(answers.grades) - known.sum())
    if not known.any():
        return {"accuracy": math.nan, "mean_grade": math.nan, "failed_grades": failed}
    summary = {
        "accuracy": float((answers.grades[known] >= np.float32(answers.right_grade)).mean()),
        "mean_grade": float(answers.grades[known].mean(dtype=np.float64)),
        "failed_grades": failed,
    }
    for name, values in {"accuracy": answers.right, "mean_grade": answers.by_question}.items():
        if not math.isnan(error := standard_error(question_means(values))):
            summary[f"{name}_se"] = error
    for k in sizes(answers.samples):
        summary[f"pass@{k}"] = _mean(pass_at(answers, k))
        if answers.keys:
            summary[f"maj@{k}"] = _mean(majority_at(answers, k))
    return summary


def sizes(samples: int) -> list[int]:
    """List the numbers of answers that `pass@k` is told of: 2, 4, 8, … below `samples`, and `samples` itself."""
    below = [2**power for power in range(1, samples.bit_length()) if 2**power < samples]
    return [*below, samples] if samples > 1 else []


def question_means(values: np.ndarray) -> np.ndarray:
    """Return the mean of each row of [questions, samples] over what is no NaN; NaN where nothing is left."""
    known = np.isfinite(values)
    counts = known.sum(axis=1)
    sums = np.where(known, values, 0.0).sum(axis=1, dtype=np.float64)
    return np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)


def standard_error(means: np.ndarray) -> float:
    """Return the standard error of the mean over questions, [Q] with NaN for those that are unknown; NaN for < 2."""
    known = means[np.isfinite(means)]
    return float(known.std(ddof=1) / math.sqrt(len(known))) if len(known) > 1 else math.nan


def pass_at(answers: Answers, k: int) -> np.ndarray:
    """Estimate, for each question, the chance that one of k answers is right; NaN where fewer than k have a grade.

    Of n answers of which c are right it is 1 - C(n-c, k) / C(n, k), unbiased (Chen et al. 2021, arXiv 2107.03374,
    equation 1), computed as the product of 1 - k / i over i = n-c+1 … n.
    """
    right = answers.right
    return np.array([_pass_of(int(np.isfinite(row).sum()), int(np.nansum(row)), k) for row in right])


def _pass_of(n: int, c: int, k: int) -> float:
    if n < k:
        return math.nan
    return 1.0 if n - c < k else float(1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))


def majority_at(answers: Answers, k: int) -> np.ndarray:
    """Estimate, for each question, the chance that the answer most of k give is right (arXiv 2203.11171).

    Of two answers that as many give, the one given first counts. For k below the number of answers it is the mean over
    draws of k of them, which are the same for every question and every model; NaN where fewer than k have a grade.
    """
    draws = _draws(answers.samples, k)
    shares = []
    for question in range(answers.questions):
        rows = slice(question * answers.samples, (question + 1) * answers.samples)
        shares.append(_majority_of(answers.right[question], answers.keys[rows], draws))
    return np.array(shares)


def _draws(samples: int, k: int) -> np.ndarray:
    """Return [draws, k] places of answers, in their order within each draw."""
    if k == samples:
        return np.arange(samples)[None]
    generator = np.random.default_rng((samples, k))
    return np.sort([generator.permutation(samples)[:k] for _ in range(MAJORITY_DRAWS)], axis=1)


def _majority_of(right: np.ndarray, keys: Sequence[str], draws: np.ndarray) -> float:
    votes = []
    for draw in draws:
        known = [place for place in draw.tolist() if math.isfinite(right[place])]
        if len(known) == len(draw):
            given = [keys[place] for place in known]
            winner = max(dict.fromkeys(given), key=given.count)
            votes.append(right[known[given.index(winner)]])
    return float(np.mean(votes)) if votes else math.nan


@dataclass(frozen=True)
class Comparison:
    """Difference of two models on the same questions: the second's mean grade less the first's.

    Attributes:
        difference: mean over the questions that both have grades of.
        error: its standard error; of paired differences, so what is hard for both does not count.
        p_value: chance of a difference as large, in either direction, if the models were alike.
        questions: how many were compared.
    """

    difference: float
    error: float
    p_value: float
    questions: int


def compare(first: Answers, second: Answers, *, accuracy: bool = True) -> Comparison:
    """Compare two models' answers to the same questions, by accuracy or by grade.

    The p-value is that of a paired permutation test: under the null hypothesis each question's difference may as well
    have the other sign. It is exact up to 13 questions, else by 10,000 random flips of the signs.
    """
    assert first.questions == second.questions
    pair = [question_means(one.right if accuracy else one.by_question) for one in (first, second)]
    differences = pair[1] - pair[0]
    differences = differences[np.isfinite(differences)]
    if not len(differences):
        return Comparison(math.nan, math.nan, math.nan, 0)
    observed = abs(float(differences.sum()))
    as_large = [abs(total) >= observed - 1e-9 for total in _flipped_sums(differences)]
    return Comparison(
        float(differences.mean()), standard_error(differences), float(np.mean(as_large)), len(differences)
    )


def _flipped_sums(differences: np.ndarray) -> Iterator[float]:
    """Yield the sum of the differences under every choice of signs, or under many random ones and the observed."""
    count = len(differences)
    if 2**count < SIGN_FLIPS:
        for number in range(2**count):
            yield float(np.where(number >> np.arange(count) & 1, -differences, differences).sum())
        return
    yield float(differences.sum())
    generator = np.random.default_rng(0)
    for _ in range(SIGN_FLIPS):
        yield float(np.where(generator.random(count) < 0.5, -differences, differences).sum())


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan
