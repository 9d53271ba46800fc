"""Does each schedule learn as sync does? `python -m benchmarks.schedule_learning --json schedule_learning.json`

Claim, for each schedule: GRPO on `experiment=addition`, from one warm start and over as many rows, ends at an accuracy
on held-out sums whose mean over three seeds is within 0.03 of sync's (`from_sync`, `within`), and sync's is at least
0.15 above the start (`gained`). `lag` is the mean age of the weights that sampled, in updates, of which a step takes
two; `over_updates` the share of rows that were under way when weights came, and went on with them. Runs have one
training rank and one rank of generation. `--forked` forks ranks from a process that has imported the engines: it takes
a third of the time, and what is learned is the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.short_runs import ShortRuns, metrics_of, short_runs
from tests.forked_ranks import fork_server

SCHEDULES: dict[str, tuple[str, ...]] = {
    "sync": ("trainer.schedule=sync",),
    "one_step_off": ("trainer.schedule=one_step_off",),
    "async": ("trainer.schedule=async", "trainer.max_staleness=1"),
    # Half of a step's rows at once, and slowly, so that weights come while they are under way.
    "async_partial": (
        "trainer.schedule=async", "trainer.max_staleness=2", "rollout.max_concurrent_rows=256",
        "plugins=[benchmarks.slow_generation]",
    ),
    "stream": ("trainer.schedule=stream",),
}  # fmt: skip
WITHIN, GAIN = 0.03, 0.15
STEPS = 32  # it is nearly learned then; before, rows that are S steps older are S steps behind
ONE_RANK = ("placement.pools={main: 1}", "actor.parallel.tensor=1")
WARM_UP = (
    "experiment=addition_warmup", *ONE_RANK, "trainer.steps=200", "trainer.validate_every=10",
    "trainer.stop_at_accuracy=0.5",
)  # fmt: skip
# As many held-out sums as there are, for an accuracy of 512 of them is off by 0.01 itself.
SETTINGS = (
    "experiment=addition", "algorithm=grpo", "algorithm.prompts_per_step=64", "placement=rollout_pool",
    "placement.pools={train: 1, rollout: 1}", "actor.parallel.tensor=1", f"trainer.steps={STEPS}",
    f"trainer.validate_every={STEPS}", "trainer.validation_prompts=1000", "trainer.log_rollouts_every=1",
    "trainer.stop_at_accuracy=null",
)  # fmt: skip


def learned(runs: ShortRuns, schedules: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Let sync and these schedules learn with each seed; return a row for each."""
    runs.run("sft", "addition_warmup", *WARM_UP)
    rows: list[dict[str, Any]] = []
    for schedule in dict.fromkeys(("sync", *schedules)):
        row = row_of(schedule, [
            runs.run("train", f"{schedule}_{seed}", *SETTINGS, *SCHEDULES[schedule], f"run.seed={seed}")
            for seed in seeds
        ])  # fmt: skip
        sync = rows[0] if rows else row
        row["from_sync"] = round(row["mean"] - sync["mean"], 4)
        row["within"] = abs(row["from_sync"]) <= WITHIN and row["trained_rows"] == sync["trained_rows"]
        rows.append(row)
    return rows


def row_of(schedule: str, folders: Sequence[Path]) -> dict[str, Any]:
    """Return what the runs of a schedule have come to."""
    accuracy = [[line["validation/accuracy"] for line in metrics_of(folder, "validation/accuracy")]
                for folder in folders]  # fmt: skip
    lags = [line["rollout/version_lag_mean"] for folder in folders
            for line in metrics_of(folder, "rollout/version_lag_mean")]  # fmt: skip
    trained = {sum(int(line["rollout/rows"]) for line in metrics_of(folder, "timing_s/step")) for folder in folders}
    return {
        "schedule": schedule,
        "trained_rows": max(trained),
        "before": accuracy[0][0],
        "after": [run[-1] for run in accuracy],
        "mean": round(fmean(run[-1] for run in accuracy), 4),
        "lag": round(fmean(lags), 2),
        "over_updates": round(fmean(map(share_over_updates, folders)), 4),
        "gained": fmean(run[-1] - run[0] for run in accuracy) >= GAIN,
    }


def share_over_updates(folder: Path) -> float:
    """Return the share of a run's rows that went on over an update: those that several versions have sampled."""
    lines = (line for file in (folder / "rollouts").glob("rank*.jsonl") for line in file.open(encoding="utf-8"))
    return fmean(isinstance(json.loads(line)["weight_version"], list) for line in lines)


def show(rows: Sequence[dict[str, Any]]) -> None:
    print(f"{'schedule':14}{'rows':>8}{'before':>8}{'after':>8}{'from sync':>11}{'lag':>7}{'over updates':>14}")
    for row in rows:
        print(f"{row['schedule']:14}{row['trained_rows']:8}{row['before']:8.3f}{row['mean']:8.3f}"
              f"{row['from_sync']:+11.3f}{row['lag']:7.2f}{row['over_updates']:14.3f}")  # fmt: skip


def main() -> int:
    """Return 0 if every schedule learns as sync does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", choices=SCHEDULES, default=list(SCHEDULES))
    parser.add_argument("--forked", action="store_true")
    options = parser.parse_args()
    server = fork_server() if options.forked else nullcontext({})
    with server as forks, short_runs(forks) as runs:
        rows = learned(runs, options.only, options.seeds)
    show(rows)
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    return 0 if all(row["within"] for row in rows) and rows[0]["gained"] else 1


if __name__ == "__main__":
    sys.exit(main())
