"""Effective training time ratio: seconds of steps that were kept, over the seconds that they took with faults between.

    python -m benchmarks.ettr --json ettr.json [--seed N] [--forked]

Claim: addition trains through eight faults, SIGKILL and SIGSTOP in turn, in every role and phase of a step. Each is
noticed within 10 seconds and costs at most one step's work; from then until the next step it takes at most 1.25 times
as long as the pool that was lost took at the start of the same run; the final weights are those of the undisturbed
run, in which nothing is noticed. `ettr_at_300s_steps` is what these seconds come to with steps of 300 s and a fault
every ten of them, at least 0.90.

Processes start as users' do, which takes most of the time of a recovery, and some minutes in all; `--forked` forks them
from one that has the engines imported, for a quick look whose seconds say little.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.fault_runs import WITHIN_S, Ended, Runs, weights
from tests.forked_ranks import fork_server

LAYOUT = "disaggregated"
# A call of each role and phase of a step of PPO, and the rank on which the fault happens.
CALLS = (
    ("rollout.generate_sequences", 0), ("actor.compute_log_prob", 1), ("critic.compute_values", 1),
    ("reference.compute_ref_log_prob", 1), ("reward.compute_reward", 1), ("critic.update_critic", 1),
    ("actor.update_actor", 1), ("rollout.receive_weights", 0),
)  # fmt: skip
STEPS = 3 * len(CALLS) + 2  # a fault happens in the second or third step after the last
LIMIT_S = 1800.0  # of the run with faults
STEP_S = 300.0
STEPS_A_FAULT = 10
MAX_STEPS_LOST = 1
MAX_OF_COLD_START = 1.25
MIN_ETTR = 0.90
STEP_DONE = f"/{STEPS} done)"
MORE = (f"trainer.steps={STEPS}", "trainer.print_every_step=true", f"trainer.max_failures={len(CALLS)}")
SHOWN = ("starting", "failure ", "waiting for", "new processes", "went on", "error")


def drawn(seed: int) -> list[str]:
    """Draw the faults: every call, in an order of the seed, in the second or third step after the last."""
    chance = random.Random(seed)
    calls = list(CALLS)
    chance.shuffle(calls)
    hows = ("SIGKILL", "SIGSTOP")
    return [f"{call}:{chance.choice((1, 2))}:{rank}:{hows[number % 2]}" for number, (call, rank) in enumerate(calls)]


def lines(ended: Ended, words: str) -> list[float]:
    """Return when the lines with these words came."""
    return [at for at, line in ended.lines if words in line]


def events(ended: Ended, name: str) -> list[dict[str, Any]]:
    """Return the events of a run that have this name."""
    found = [json.loads(line) for line in (ended.folder / "events.jsonl").read_text().splitlines()]
    return [event for event in found if event["event"] == name]


def costs(ended: Ended, faults: Sequence[str]) -> list[dict[str, Any]]:
    """Return what each fault cost, and what the start of the same pools took in this run."""
    (start,) = events(ended, "start")
    told = lines(ended, "that it goes on after:")
    begun = sorted([*lines(ended, "saved step"), *lines(ended, "went on with step")])
    found: list[dict[str, Any]] = []
    failures, recoveries = events(ended, "failure"), events(ended, "recovery")
    for number, (fault, noticed, failure, recovery) in enumerate(
        zip(faults, told, failures, recoveries, strict=True)
    ):  # fmt: skip
        at = ended.happened(number)
        assert at is not None, f"{fault} did not happen"
        cold_start_s = sum(start["pools"][pool] for pool in recovery["pools"])
        found.append(
            {
                "fault": fault,
                "pools": recovery["pools"],
                "detect_s": round(noticed - at, 2),
                "recover_s": round(recovery["seconds"], 2),
                "settle_s": round(recovery["settle_s"], 2),
                "start_s": round(recovery["start_s"], 2),
                "cold_start_s": round(cold_start_s, 2),
                "of_cold_start": round(recovery["seconds"] / cold_start_s, 3),
                "lost_s": round(at - max([begin for begin in begun if begin <= at], default=at), 2),
                "steps_lost": 0 if failure["step"] is None else failure["step"] - recovery["step"] + 1,
            }
        )
    return found


def measured(ended: Ended, faults: Sequence[str], undisturbed: Ended) -> dict[str, Any]:
    """Return what the faults cost, and whether the claim holds."""
    kept = [json.loads(line) for line in (ended.folder / "metrics.jsonl").read_text().splitlines()]
    seconds = [line["timing_s/step"] for line in kept if "timing_s/step" in line]
    wall = lines(ended, STEP_DONE)[-1] - (lines(ended, STEP_DONE)[0] - seconds[0])
    faults_cost = costs(ended, faults)
    lost_steps = mean(cost["lost_s"] for cost in faults_cost) / mean(seconds)
    idle = mean(cost["detect_s"] + cost["recover_s"] for cost in faults_cost)
    work = STEPS_A_FAULT * STEP_S
    found = {
        "ettr": round(sum(seconds) / wall, 4),
        "ettr_at_300s_steps": round(work / (work + idle + lost_steps * STEP_S), 4),
        "lost_steps_a_fault": round(lost_steps, 3),
        "detect_s_max": max(cost["detect_s"] for cost in faults_cost),
        "steps_lost_max": max(cost["steps_lost"] for cost in faults_cost),
        "of_cold_start_max": max(cost["of_cold_start"] for cost in faults_cost),
        "bounds": {
            "ettr_at_300s_steps": MIN_ETTR, "detect_s_max": WITHIN_S, "steps_lost_max": MAX_STEPS_LOST,
            "of_cold_start_max": MAX_OF_COLD_START,
        },
        "weights_equal": weights(ended) == weights(undisturbed) != b"",
        "false_alarms": len(lines(undisturbed, "failure ")) + len(lines(undisturbed, "waiting for rank")),
        "goodput": {one.folder.name: goodput(one) for one in (undisturbed, ended)},
        "events": faults_cost,
    }  # fmt: skip
    return {"pass": holds(found), **found}


def goodput(ended: Ended) -> dict[str, Any]:
    """Return what a run itself says that its time went into."""
    record = json.loads((ended.folder / "run.json").read_text())
    return {"goodput": record["goodput"], "spent": record["spent"]}


def holds(found: Mapping[str, Any]) -> bool:
    """Tell whether the claim holds."""
    bounds = found["bounds"]
    bounded = all(found[name] <= bound for name, bound in bounds.items() if name != "ettr_at_300s_steps")
    enough = found["ettr_at_300s_steps"] >= bounds["ettr_at_300s_steps"]
    return bounded and enough and found["weights_equal"] and not found["false_alarms"]


def main() -> int:
    """Make both runs; return 0 if the claim holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--forked", action="store_true", help="a quick look: fork processes instead of starting them")
    options = parser.parse_args()
    faults = drawn(options.seed)
    server = fork_server() if options.forked else nullcontext({})
    with tempfile.TemporaryDirectory(prefix="hybridflow-ettr-") as folder, server as forks:
        runs = Runs(Path(folder), dict(forks), SHOWN)
        runs.warm_up()
        undisturbed = runs.undisturbed(LAYOUT, MORE)
        disturbed = runs.run("disturbed", LAYOUT, faults, MORE, limit_s=LIMIT_S)
        assert disturbed.status == 0, disturbed.lines[-1:]
        found = {"forked": options.forked, **measured(disturbed, faults, undisturbed)}
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if found["pass"] else 1


if __name__ == "__main__":
    sys.exit(main())
