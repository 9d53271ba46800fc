"""What the comparison makes of a benchmark: its numbers, a second run where one is worse, and its failures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import all_ratios
from benchmarks.all_ratios import BenchmarkError, compare, compared, line_of, measured, values, worse_twice
from benchmarks.baseline import Baseline, Verdict
from benchmarks.ratios import BENCHMARKS, RATIOS, Benchmark

STEP = BENCHMARKS["step"]
HERE = "2 cores, AVX2"
BASELINE = {"step/ppo_addition/engine_share": Baseline.of([0.93, 0.94, 0.95], HERE)}


def test_ratios_are_found_where_their_benchmarks_have_them() -> None:
    cases = [
        {"model": "llama_20m", "train": "2-1-1", "generate": "1-1", "speedup_vs_v": 1.0},
        {"model": "llama_20m", "train": "2-1-1", "generate": "2-1", "speedup_vs_v": 3.0},
    ]
    found = values(BENCHMARKS["resharding"], {"cases": cases, "speedup_vs_v": 9.0})
    assert {ratio.name: value for ratio, value in found.items()} == {
        "resharding/cases/llama_20m 2-1-1 1-1/speedup_vs_v": 1.0,
        "resharding/cases/llama_20m 2-1-1 2-1/speedup_vs_v": 3.0,
    }


def verdicts(*shares: float) -> list[list[Any]]:
    """Comparisons of these engine shares."""
    ratio = next(ratio for ratio in RATIOS if ratio.benchmark == "step")
    return [compared({ratio: share}, BASELINE, HERE) for share in shares]


def test_a_ratio_is_worse_if_it_is_so_twice() -> None:
    good, bad = verdicts(0.94, 0.85)
    assert (good[0].verdict, bad[0].verdict) == (Verdict.same, Verdict.worse)
    assert [one.verdict for one in worse_twice(bad, bad)] == [Verdict.worse]
    assert [one.verdict for one in worse_twice(good, bad)] == [Verdict.same]
    assert [one.verdict for one in worse_twice(bad, good)] == [Verdict.same]


@pytest.mark.parametrize(("shares", "verdict"), [((0.85, 0.94), "same"), ((0.85, 0.86), "WORSE"), ((0.94,), "same")])
def test_only_what_is_worse_is_measured_again(
    shares: tuple[float, ...], verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = iter([({"ppo_addition": {"engine_share": share}}, True) for share in shares])
    monkeypatch.setattr(all_ratios, "measured", lambda *_, **__: next(runs))
    [row] = compare(STEP, BASELINE, HERE, fast=True)
    assert row.verdict == verdict and f"{row.verdict:10}  baseline 0.94 (0.93 to 0.95)" in line_of(row)
    assert next(runs, None) is None


def test_a_claim_that_does_not_hold_twice_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_ratios, "measured", lambda *_, **__: ({"ppo_addition": {"engine_share": 0.94}}, False))
    with pytest.raises(BenchmarkError, match="its claims do not hold"):
        compare(STEP, BASELINE, HERE, fast=False)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("Path(sys.argv[2]).write_text(json.dumps({'a': sys.argv[3:]}))", ({"a": ["--short"]}, True)),
        ("Path(sys.argv[2]).write_text('{}'); sys.exit(1)", ({}, False)),
    ],
)
def test_a_benchmark_is_a_program_that_writes_json(
    code: str, found: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/__init__.py").touch()
    (tmp_path / "benchmarks/mine.py").write_text(f"import json, sys\nfrom pathlib import Path\n{code}\n")
    monkeypatch.chdir(tmp_path)
    assert measured(Benchmark("mine", fast=("--short",)), fast=True) == found
    assert capfd.readouterr().out.startswith("mine --short …\n")


@pytest.mark.processes
def test_one_that_gives_nothing_is_told_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BenchmarkError, match=r"gave no numbers:\n.*No module named benchmarks\.mine$"):
        measured(Benchmark("mine"), fast=False)


def test_a_result_is_json() -> None:
    [row], _ = verdicts(0.94, 0.85)
    text = json.dumps(all_ratios._result(HERE, [row], ["x failed"]))
    assert json.loads(text)["ratios"]["step/ppo_addition/engine_share"]["verdict"] == "same"
