"""The numbers that pages quote are those of `benchmarks/baseline.json`, and each is one that a benchmark measures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import baseline
from benchmarks.ratios import BENCHMARKS, RATIOS, Ratio

ROOT = Path(__file__).parents[2]
BASELINE = baseline.read()


def test_each_ratio_is_known_once_and_measured_by_a_benchmark() -> None:
    names = [ratio.name for ratio in RATIOS]
    assert len(names) == len({*names})
    assert BASELINE.keys() <= {*names}
    for module in {ratio.benchmark for ratio in RATIOS}:
        assert (ROOT / f"benchmarks/{module}.py").is_file() and module in BENCHMARKS
    assert {*BENCHMARKS} == {ratio.benchmark for ratio in RATIOS}


@pytest.mark.parametrize("ratio", [one for one in RATIOS if one.name in BASELINE], ids=lambda ratio: ratio.name)
def test_a_page_quotes_the_baseline(ratio: Ratio) -> None:
    """What was never measured is quoted nowhere."""
    text = (ROOT / ratio.page).read_text("utf-8").replace(" %", "%")
    lines = [line for line in text.splitlines() if ratio.line.replace(" %", "%") in line]
    assert lines, f"{ratio.page} has no line with {ratio.line!r}"
    wanted = ratio.quoted(BASELINE[ratio.name].value)
    assert any(re.search(rf"(?<![\d.]){re.escape(wanted)}(?!\d)", line) for line in lines), (
        f"{ratio.page}: {wanted} was expected in {lines}, as benchmarks/baseline.json has it for {ratio.name}"
    )


@pytest.mark.parametrize("module", [name for name, one in BENCHMARKS.items() if one.fast is not None])
def test_fast_arguments_measure_something(module: str) -> None:
    assert any(ratio.fast for ratio in RATIOS if ratio.benchmark == module)
