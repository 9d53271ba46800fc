"""How much faster is each schedule than sync? `python -m benchmarks.schedule --json schedule.json`

Every run is a simulation, in seconds, on the scheduler that real runs are driven by: generation with 8 to 1,024 slots
and a learner on devices of their own, steps of as many rows as there are slots, 4 rows a prompt. Learning from a step
takes `--learning` (0.5) times as long as generating it would in slots that are never idle, a row alone advances
twice as fast as all slots full, and a weight sync takes 2 % of a step's generation. Of those `_lent` the learner has as
many slots as generation, and lends them while it waits.

Claims, for each schedule, distribution of lengths and number of slots (`rows`):

* `over_sync`: rows learned from a second / those of sync. Not of `oversampling_drop`: it learns from other rows.
* `bound_held`: every prompt was learned from exactly once (or dropped, where that is the schedule), no row with weights
  more than S versions behind, no more than (S + 1)·P prompts in flight.
* `ks`: the Kolmogorov-Smirnov distance between the lengths of all rows that were begun and of those learned from.

Lengths are `short` (16 to 64 tokens, uniform), `lognormal` (median 1,000, sigma 0.8), `tail` (short ones of 400 to 600,
of which those of 10 % of prompts are ten times as long), and those of a file, a JSON list (`--recorded`).

`--real N` adds `prediction`, for each schedule that runs can take: the seconds of a step as they are simulated from a
run of sync, over those that a run of that schedule took (`simulated_over_measured`), of N pairs of runs that it makes
of 1 + 1 ranks, each pinned to a core of its own. Claim: their `median` is `within` 15 % of 1, with N of at least 5.
`--measured SYNC OTHER` compares the folders of two runs instead, the latter with trainer.schedule=one_step_off.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import schedule_real
from benchmarks.schedule_prediction import prediction
from hybridflow.planning.simulated_run import Costs, SimulatedOutcome, SimulatedRun
from hybridflow.scheduling import SchedulePolicy, Stopped, policy_of

SAMPLES = 4
STEPS = 20
SLOTS = (8, 16, 32, 64, 128, 256, 512, 1024)
SYNC_SHARE = 0.02

Schedules = dict[str, tuple[str, dict[str, Any]]]
SCHEDULES: Schedules = {
    "sync": ("sync", {}),
    "stream": ("stream", {}),
    "tail_batching": ("sync", {"spare": 0.25, "stopped": Stopped.long_round}),
    "oversampling_drop": ("sync", {"spare": 0.25, "stopped": Stopped.drop}),
    "one_step_off": ("one_step_off", {}),
    "async_1": ("async", {"max_staleness": 1}),
    "async_2": ("async", {"max_staleness": 2}),
    "async_2_whole": ("async", {"max_staleness": 2, "partial": False}),
    "async_4": ("async", {"max_staleness": 4}),
    "sync_lent": ("sync", {"lent": 1}),
    "async_1_lent": ("async", {"max_staleness": 1, "lent": 1}),
}


def short(chance: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return chance.integers(16, 65, size)


def lognormal(chance: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return np.maximum(1, chance.lognormal(np.log(1000), 0.8, size)).astype(np.int64)


def tail(chance: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return chance.integers(400, 601, size) * np.where(chance.random((size[0], 1)) < 0.1, 10, 1)


DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "short": short,
    "lognormal": lognormal,
    "tail": tail,
}


def recorded(file: Path) -> np.ndarray:
    """Return the lengths in a file: one JSON list."""
    return np.array(json.loads(file.read_text("utf-8")), dtype=np.int64)


def ks_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest distance between two empirical distribution functions."""
    at = np.union1d(one, other)
    shares = [np.searchsorted(np.sort(values.ravel()), at, side="right") / values.size for values in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


def policy_for(name: str, slots: int) -> SchedulePolicy:
    prompts = slots // SAMPLES
    schedule, changes = SCHEDULES[name]
    changes = {"samples_per_prompt": SAMPLES, **changes}
    lent = changes.pop("lent", 0)
    if "spare" in changes:
        changes["spare_prompts"] = max(1, int(changes.pop("spare") * prompts))
    if schedule == "async":
        changes["slots"] = slots * (1 + lent)  # what waits in a queue would be begun with older weights
    if schedule == "stream":
        changes["minibatches"] = min(4, prompts)
    return policy_of(schedule, prompts, **changes)


def simulate(name: str, lengths: np.ndarray, slots: int, learning: float) -> SimulatedOutcome:
    policy = policy_for(name, slots)
    tokens_a_step = lengths.mean() * SAMPLES * policy.prompts_per_step
    generation_s = tokens_a_step / slots
    costs = Costs(
        slots, learned_token_s=learning * generation_s / tokens_a_step, sync_s=SYNC_SHARE * generation_s,
        lent_slots=slots * SCHEDULES[name][1].get("lent", 0),
    )  # fmt: skip
    return SimulatedRun(policy, lengths, costs).finish()


def measured(name: str, lengths: np.ndarray, slots: int, learning: float) -> dict[str, Any]:
    """Simulate one schedule; return what its row says, but for the comparison."""
    outcome = simulate(name, lengths, slots, learning)
    trained = lengths[[prompt for _, prompt, _ in outcome.trained]]
    return {
        "slots": slots,
        "rows_per_s": trained.size / outcome.seconds,
        "bound_held": outcome.keeps(policy_for(name, slots), len(lengths)),
        "max_staleness": max(behind for _, _, behind in outcome.trained),
        "max_in_flight": outcome.max_in_flight,
        "ks": round(ks_distance(trained, lengths), 4),
        "generation_idle": round(1 - outcome.busy / (outcome.seconds * slots), 3),
        "learner_idle": round(1 - (outcome.learning_s + outcome.lent / slots) / outcome.seconds, 3),
        "dropped": len(outcome.dropped),
    }


def rows_of(distribution: str, slots: int, learning: float, lengths: np.ndarray) -> list[dict[str, Any]]:
    """Simulate every schedule on the same lengths."""
    rows: list[dict[str, Any]] = []
    for name in SCHEDULES:
        row = {"schedule": name, "distribution": distribution, **measured(name, lengths, slots, learning)}
        row["over_sync"] = round(row["rows_per_s"] / (rows[0] if rows else row)["rows_per_s"], 3)
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    print(f"{'distribution':14}{'schedule':20}" + "".join(f"{slots:>8}" for slots in SLOTS))
    for distribution in dict.fromkeys(row["distribution"] for row in rows):
        for name in SCHEDULES:
            mine = [row for row in rows if (row["distribution"], row["schedule"]) == (distribution, name)]
            print(f"{distribution:14}{name:20}" + "".join(f"{row['over_sync']:8.2f}" for row in mine))


def main() -> int:
    """Simulate everything; return 0 if every bound was held, and what was predicted has come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--learning", type=float, default=0.5)
    parser.add_argument("--recorded", type=Path)
    parser.add_argument("--measured", type=Path, nargs=2, metavar=("SYNC", "OTHER"))
    parser.add_argument("--real", type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sources = dict(DISTRIBUTIONS)
    if options.recorded:
        known = recorded(options.recorded)
        sources["recorded"] = lambda chance, size: chance.choice(known, size)
    rows: list[dict[str, Any]] = []
    for distribution, draw in sources.items():
        for slots in SLOTS:
            prompts = STEPS * policy_for("sync", slots).prompts_per_step
            lengths = draw(np.random.default_rng((options.seed, slots)), (prompts, SAMPLES))
            rows += rows_of(distribution, slots, options.learning, lengths)
    show(rows)
    found: dict[str, Any] = {"learning": options.learning, "rows": rows}
    predictions: list[dict[str, Any]] = []
    if options.measured:
        predictions.append(prediction("one_step_off", [tuple(options.measured)]))
    if options.real:
        predictions += schedule_real.predictions(options.real)
    for predicted in predictions:
        print(json.dumps(predicted))
    if predictions:
        found["prediction"] = predictions
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    held = all(row["bound_held"] for row in rows) and all(predicted["within"] for predicted in predictions)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
