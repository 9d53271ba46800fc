"""Has a ratio that the documentation quotes become worse? `python -m benchmarks.all_ratios --json ratios.json`

Runs the benchmarks of `benchmarks.ratios` one after the other and compares what they find with
`benchmarks/baseline.json`. One that is worse than its noise is measured again, for the machine may have had other work;
if it is worse again, the exit status is 1, as it is if a benchmark fails, or says that its own claims do not hold.
Ratios of another kind of machine, or of which only one value is known, are shown and not judged. Let nothing else run
meanwhile.

`--fast` takes the part of it that needs some five minutes; `--only` some of the benchmarks. `--write` measures the
baseline anew instead, of these benchmarks: `--runs` (3) times each, whose median and range it keeps. The lines of the
documentation that quote a ratio then have to follow (`tests/docs/test_ratios.py`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.baseline import Baseline, Verdict, machine, read, write
from benchmarks.ratios import BENCHMARKS, RATIOS, Benchmark, Ratio

LAST_LINES = 12


class BenchmarkError(Exception):
    """Benchmark that gave no numbers, with the end of what it printed."""


@dataclass(frozen=True)
class Compared:
    """Ratio beside its baseline."""

    ratio: Ratio
    kept: Baseline | None
    found: float
    verdict: Verdict


def measured(benchmark: Benchmark, *, fast: bool) -> tuple[dict[str, Any], bool]:
    """Run a benchmark; return its JSON, and whether its claims hold. Raises BenchmarkError if it gave none."""
    arguments = benchmark.fast if fast and benchmark.fast is not None else benchmark.arguments
    print(" ".join([benchmark.module, *arguments, "…"]), flush=True)
    began = perf_counter()
    with tempfile.TemporaryDirectory(prefix="hybridflow-ratios-") as folder:
        file = Path(folder) / "found.json"
        command = [sys.executable, "-m", f"benchmarks.{benchmark.module}", "--json", str(file), *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        if not file.exists():
            last = "\n".join(done.stdout.splitlines()[-LAST_LINES:])
            raise BenchmarkError(f"{benchmark.module} ended with {done.returncode} and gave no numbers:\n{last}")
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    held = not done.returncode
    print(f"  {perf_counter() - began:.0f} s{'' if held else ', and its claims do not hold'}", flush=True)
    return found, held


def values(benchmark: Benchmark, found: Mapping[str, Any]) -> dict[Ratio, float]:
    """Return the ratios that a benchmark has measured."""
    known = ((ratio, ratio.value_in(found)) for ratio in RATIOS if ratio.benchmark == benchmark.module)
    return {ratio: value for ratio, value in known if value is not None}


def compared(found: Mapping[Ratio, float], baseline: Mapping[str, Baseline], here: str) -> list[Compared]:
    """Compare ratios with the baseline; one that it does not have is not judged."""
    return [
        Compared(ratio, kept, value, kept.judge(value, ratio.better, here) if kept else Verdict.not_judged)
        for ratio, value in found.items()
        for kept in [baseline.get(ratio.name)]
    ]


def worse_twice(first: Iterable[Compared], second: Iterable[Compared]) -> list[Compared]:
    """Return the second comparison, where a ratio is worse only if it was so in the first too."""
    before = {one.ratio for one in first if one.verdict is Verdict.worse}
    return [
        Compared(one.ratio, one.kept, one.found, Verdict.same)
        if one.verdict is Verdict.worse and one.ratio not in before
        else one
        for one in second
    ]


def compare(benchmark: Benchmark, baseline: Mapping[str, Baseline], here: str, *, fast: bool) -> list[Compared]:
    """Measure the ratios of a benchmark, again if one is worse. Raises BenchmarkError as `measured`."""
    found, held = measured(benchmark, fast=fast)
    rows = compared(values(benchmark, found), baseline, here)
    if held and not any(row.verdict is Verdict.worse for row in rows):
        return rows
    print("  once more, as other work may have been in the way", flush=True)
    again, held = measured(benchmark, fast=fast)
    if not held:
        raise BenchmarkError(f"{benchmark.module}: its claims do not hold, in two runs")
    return worse_twice(rows, compared(values(benchmark, again), baseline, here))


def line_of(row: Compared) -> str:
    """Show a ratio in a line."""
    kept = row.kept
    before = "new" if kept is None else f"{kept.value:g}"
    spread = f" ({kept.low:g} to {kept.high:g})" if kept and kept.low is not None else ""
    where = f", on {kept.machine}" if kept and row.verdict is Verdict.not_judged else ""
    return f"{row.ratio.name:64} {row.found:10.4g}  {row.verdict:10}  baseline {before}{spread}{where}"


def main() -> int:
    """Compare, or write the baseline; return 0 if nothing is worse."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--fast", action="store_true", help="what takes some five minutes")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--write", action="store_true", help="measure the baseline anew")
    parser.add_argument("--runs", type=int, default=3, help="of each benchmark, for --write")
    options = parser.parse_args()
    chosen = [BENCHMARKS[name] for name in options.only or BENCHMARKS]
    wanted = [one for one in chosen if one.fast is not None or not options.fast]
    if options.write:
        return _write(wanted, options.runs, fast=options.fast)
    here, baseline = machine(), read()
    rows: list[Compared] = []
    failed: list[str] = []
    for benchmark in wanted:
        try:
            rows += compare(benchmark, baseline, here, fast=options.fast)
        except BenchmarkError as error:
            failed.append(str(error))
    print("\n".join([*map(line_of, rows), *failed]))
    if options.json:
        options.json.write_text(json.dumps(_result(here, rows, failed), indent=1) + "\n")
    return 1 if failed or any(row.verdict is Verdict.worse for row in rows) else 0


def _write(wanted: Sequence[Benchmark], runs: int, *, fast: bool) -> int:
    """Measure these benchmarks, and keep what they find; after each, so that an interruption loses little."""
    for benchmark in wanted:
        found = [values(benchmark, measured(benchmark, fast=fast)[0]) for _ in range(runs)]
        known = set(found[0]).intersection(*found[1:])
        write({**read(), **{ratio.name: Baseline.of([one[ratio] for one in found], machine()) for ratio in known}})
    return 0


def _result(here: str, rows: Sequence[Compared], failed: Sequence[str]) -> dict[str, Any]:
    return {
        "machine": here,
        "ratios": {
            row.ratio.name: {
                "found": row.found,
                "baseline": row.kept and vars(row.kept),
                "better": row.ratio.better,
                "verdict": row.verdict,
            }
            for row in rows
        },
        "failed": list(failed),
    }


if __name__ == "__main__":
    sys.exit(main())
