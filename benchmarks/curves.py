"""Two runs of the same seed have the same curves, to the last bit: `python -m benchmarks.curves RUN RUN`.

Compares every metric and every sampled row of two run folders but for what a clock or the machine's memory says, and
exits with 1 at the first difference. A change that claims to leave numbers as they are is shown so. What only one of
the two has anywhere, as a metric that the change has added, is named and not compared.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MEASURED = ("timing_s/", "perf/tokens_per_s", "perf/goodput", "perf/slowest_rank/")  # by a clock
ROLES_MEASURED = ("/memory_peak_gib", "/tflops_per_rank", "/mfu")  # by a clock, or of the machine's memory
ROLLOUTS = "rollouts"


def main() -> None:
    """Compare the two run folders that the command line names."""
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m benchmarks.curves RUN RUN")
    first, second = map(Path, sys.argv[1:])
    for difference in differences(first, second):
        raise SystemExit(difference)
    steps = len(read_lines(first / "metrics.jsonl"))
    for name in sorted(names(first) ^ names(second)):
        print(f"not compared, only in {first if name in names(first) else second}: {name}")
    print(f"{first} and {second}: {steps} lines of metrics and all sampled rows are equal")


def differences(first: Path, second: Path) -> Iterator[str]:
    """Yield where the two runs differ."""
    both = names(first) & names(second)
    for file in lines_of(first):
        ours = read_lines(first / file)
        theirs = read_lines(second / file)
        if len(ours) != len(theirs):
            yield f"{file}: {len(ours)} lines and {len(theirs)}"
        for number, (one, other) in enumerate(zip(ours, theirs, strict=False), 1):
            for name in sorted((one.keys() | other.keys()) & both):
                if one.get(name) != other.get(name):
                    yield f"{file}:{number}: {name} is {one.get(name)} and {other.get(name)}"


def lines_of(run: Path) -> list[Path]:
    """List the files that are compared, by their places in a run folder."""
    return [Path("metrics.jsonl"), *sorted(path.relative_to(run) for path in (run / ROLLOUTS).rglob("*.jsonl"))]


def names(run: Path) -> set[str]:
    """Return the names of all metrics and columns of a run."""
    return {name for file in lines_of(run) for line in read_lines(run / file) for name in line}


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Read the lines of a JSON file, without what was measured by a clock."""
    found = [json.loads(line) for line in file.read_text().splitlines()]
    return [{name: value for name, value in line.items() if not is_measured(name)} for line in found]


def is_measured(name: str) -> bool:
    """Tell whether a metric may differ between equal runs."""
    return name.startswith(MEASURED) or name.endswith(ROLES_MEASURED)


if __name__ == "__main__":
    main()
