"""Ratios beside those of the baseline: which are the same but for noise, which are better, and which are worse.

The noise of a ratio is what it differed by between the runs in which the baseline was measured. It counts as worse once
it is beyond the worst of these by more than they were apart, and by more than a hundredth: then one more run would
hardly have been so.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import median

from benchmarks.ratios import Better

FILE = Path(__file__).with_name("baseline.json")
LEAST_NOISE = 0.01  # of a value: what is written with three digits is rounded by as much
INSTRUCTIONS = {"avx512f": "AVX-512", "avx2": "AVX2"}


class Verdict(StrEnum):
    """Comparison of a ratio with its baseline."""

    better = "better"
    same = "same"
    worse = "WORSE"
    not_judged = "not judged"  # its noise is not known, or another kind of machine had it


@dataclass(frozen=True)
class Baseline:
    """Ratio as it was measured.

    Attributes:
        low, high: the least and the most of several runs; None: there was one, and its noise is not known.
        machine: what it was measured on, as `machine` says.
    """

    value: float
    low: float | None
    high: float | None
    machine: str

    @staticmethod
    def of(values: Sequence[float], machine: str) -> Baseline:
        """Make one of the values of some runs."""
        several = len(values) > 1
        return Baseline(
            round(median(values), 6), min(values) if several else None, max(values) if several else None, machine
        )

    def judge(self, found: float, better: Better, machine: str) -> Verdict:
        """Compare what was found on a machine."""
        if self.low is None or self.high is None or self.machine != machine:
            return Verdict.not_judged
        margin = max(self.high - self.low, LEAST_NOISE * abs(self.value))
        above, below = found > self.high + margin, found < self.low - margin
        if not (above or below):
            return Verdict.same
        return Verdict.better if above is (better is Better.more) else Verdict.worse


def machine() -> str:
    """Describe this machine as far as ratios depend on it: its cores, and what they compute with."""
    cores = len(os.sched_getaffinity(0))
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        flags = []
    known = next((name for flag, name in INSTRUCTIONS.items() if flag in flags), platform.machine())
    return f"{cores} cores, {known}"


def read(file: Path = FILE) -> dict[str, Baseline]:
    """Read the baseline: a ratio by its name."""
    return {name: Baseline(**one) for name, one in json.loads(file.read_text("utf-8")).items()}


def write(ratios: Mapping[str, Baseline], file: Path = FILE) -> None:
    """Write the baseline, a line a ratio."""
    lines = [f"{json.dumps(name)}: {json.dumps(vars(ratio))}" for name, ratio in sorted(ratios.items())]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
