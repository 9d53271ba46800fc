"""Faults of whole runs: what is lost, how soon it is noticed, and whether the weights in the end are the same.

    python -m benchmarks.faults --json faults.json [--only WORDS …] [--list]

Claim: a fault costs at most the work of one step; it is noticed within 10 seconds, no row is lost or trained on twice,
and the final weights are bit for bit those of an undisturbed run, which is made in the same benchmark. Where a run must
not go on, its last line is the cause. No process outlives its run, however that ended.

The rows stand in the modules that ROWS names. The file is written after every row, so that a table that is interrupted
has those that were made.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from benchmarks import (
    fault_checkpoints,
    fault_clusters,
    fault_drivers,
    fault_endings,
    fault_full_disk,
    fault_graders,
    fault_hangs,
    fault_nonfinite,
    fault_ranks,
    fault_recoveries,
    fault_surroundings,
    fault_tampering,
)
from benchmarks.fault_runs import Result, Row, Runs
from benchmarks.left_processes import LeftProcesses
from tests.forked_ranks import fork_server

ROWS: tuple[Row, ...] = (
    *fault_ranks.ROWS,
    *fault_drivers.ROWS,
    *fault_hangs.ROWS,
    *fault_endings.ROWS,
    *fault_recoveries.ROWS,
    *fault_surroundings.ROWS,
    *fault_graders.ROWS,
    *fault_nonfinite.ROWS,
    *fault_checkpoints.ROWS,
    *fault_full_disk.ROWS,
    *fault_tampering.ROWS,
    *fault_clusters.ROWS,
)


def made(row: Row, runs: Runs, processes: LeftProcesses) -> Result:
    """Make a row; one whose making fails, or that leaves processes, does not pass."""
    began = time.monotonic()
    try:
        found = row.make(runs)
    except Exception as error:
        traceback.print_exc()
        found = {"pass": False, "told": f"{type(error).__name__}: {error}"}
    left = processes.end()
    passes = bool(found["pass"]) and not left
    return {"row": row.name, **found, "pass": passes, "left": left, "seconds": round(time.monotonic() - began, 1)}


def table(results: Sequence[Result]) -> str:
    """Lay out the rows for reading."""
    columns = ("pass", "detect_s", "status", "rows_lost", "rows_twice", "weights_equal", "seconds", "row")
    lines = [columns, *(tuple(str(result.get(column, "")) for column in columns) for result in results)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    return "\n".join("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)) for line in lines)


def main() -> int:
    """Make the rows; return 0 if every one passes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="*", help="rows whose names contain one of these words")
    parser.add_argument("--list", action="store_true", help="print the names of the rows, and make none")
    options = parser.parse_args()
    chosen = [row for row in ROWS if not options.only or any(word in row.name for word in options.only)]
    if options.list:
        print("\n".join(row.name for row in chosen))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the run under way is ended
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="hybridflow-faults-") as folder, fork_server() as forks:
        runs = Runs(Path(folder), forks)
        began = time.monotonic()
        print("the model that runs begin with …", file=sys.stderr, flush=True)
        runs.warm_up()
        processes = LeftProcesses(folder)
        for number, row in enumerate(chosen, 1):
            spent = time.monotonic() - began
            print(f"row {number} of {len(chosen)}: {row.name} … ({spent:.0f} s so far)", file=sys.stderr, flush=True)
            results.append(made(row, runs, processes))
            print(json.dumps(results[-1]), flush=True)
            if options.json:
                options.json.write_text(json.dumps({"rows": results}, indent=1) + "\n")
    print(table(results))
    return 0 if all(result["pass"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
