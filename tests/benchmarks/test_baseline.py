"""When a ratio has become worse: beyond all that it was, by more than these were apart, and on such a machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import baseline
from benchmarks.baseline import Baseline, Verdict, machine
from benchmarks.ratios import Better

HERE = "2 cores, AVX2"


@pytest.mark.parametrize(
    ("found", "better", "verdict"),
    [
        (1.05, Better.less, Verdict.same),
        (1.12, Better.less, Verdict.same),  # beyond the range, but by no more than its width
        (1.16, Better.less, Verdict.worse),
        (1.16, Better.more, Verdict.better),
        (0.92, Better.less, Verdict.better),
        (0.92, Better.more, Verdict.worse),
    ],
)
def test_noise_is_what_runs_of_the_baseline_differed_by(found: float, better: Better, verdict: Verdict) -> None:
    kept = Baseline.of([1.04, 1.00, 1.07], HERE)
    assert (kept.value, kept.low, kept.high) == (1.04, 1.00, 1.07)
    assert kept.judge(found, better, HERE) is verdict


def test_what_never_differed_may_differ_by_a_hundredth() -> None:
    kept = Baseline.of([2.0, 2.0, 2.0], HERE)
    assert [kept.judge(found, Better.more, HERE) for found in (1.981, 1.979)] == [Verdict.same, Verdict.worse]


def test_one_run_or_another_machine_judges_nothing() -> None:
    assert Baseline.of([1.0], HERE).judge(9.0, Better.less, HERE) is Verdict.not_judged
    assert Baseline.of([1.0, 1.1], "1 cores, AVX-512").judge(9.0, Better.less, HERE) is Verdict.not_judged


@given(st.lists(st.floats(0.01, 100), min_size=2), st.floats(0.01, 100), st.sampled_from(Better))
def test_a_run_of_the_baseline_is_never_worse_and_directions_mirror(
    values: list[float], found: float, better: Better
) -> None:
    kept = Baseline.of(values, HERE)
    assert {kept.judge(value, better, HERE) for value in values} == {Verdict.same}
    mirrored = {Verdict.better: Verdict.worse, Verdict.worse: Verdict.better, Verdict.same: Verdict.same}
    other = next(one for one in Better if one is not better)
    assert kept.judge(found, other, HERE) is mirrored[kept.judge(found, better, HERE)]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    ratios = {"b": Baseline.of([1.0, 1.5], machine()), "a": Baseline.of([0.25], "another")}
    baseline.write(ratios, tmp_path / "baseline.json")
    assert baseline.read(tmp_path / "baseline.json") == ratios
