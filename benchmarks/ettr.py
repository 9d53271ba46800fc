"""Effective training time ratio: seconds of steps that were kept, over the seconds that they took with faults between.

    python -m benchmarks.ettr --json ettr.json

Claim: addition trains through six faults, SIGKILL and SIGSTOP in turn, over roles and phases; each is noticed within 10
seconds and costs at most one step's work, the final weights are those of the undisturbed run, in which nothing is
noticed. `ettr_at_300s_steps` is what these seconds come to with steps of 300 s and a fault every ten of them.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.fault_ranks import PHASES
from benchmarks.fault_runs import WITHIN_S, Ended, Runs, weights
from tests.forked_ranks import fork_server

LAYOUT = "disaggregated"
FAULTS = 6
STEPS = 24
STEP_S = 300.0
STEPS_A_FAULT = 10
STEP_DONE = f"/{STEPS} done)"
MORE = (f"trainer.steps={STEPS}", "trainer.print_every_step=true", f"trainer.max_failures={FAULTS}")


def drawn(seed: int) -> list[str]:
    """Draw the faults: every phase, in an order of the seed, the call of the second or third step after the last."""
    chance = random.Random(seed)
    phases = list(PHASES[LAYOUT].values())
    chance.shuffle(phases)
    phases = (phases * FAULTS)[:FAULTS]
    hows = ("SIGKILL", "SIGSTOP")
    return [f"{call}:{chance.choice((1, 2))}:{rank}:{hows[number % 2]}" for number, (call, rank) in enumerate(phases)]


def lines(ended: Ended, words: str) -> list[float]:
    """Return when the lines with these words came."""
    return [at for at, line in ended.lines if words in line]


def measured(ended: Ended, faults: list[str], undisturbed: Ended) -> dict[str, Any]:
    """Return what the faults cost."""
    told, again = lines(ended, "that it goes on after:"), lines(ended, "went on with step")
    happened = [at for number in range(len(faults)) if (at := ended.happened(number)) is not None]
    ends = sorted([*lines(ended, STEP_DONE), *again])
    kept = [json.loads(line) for line in (ended.folder / "metrics.jsonl").read_text().splitlines()]
    seconds = [line["timing_s/step"] for line in kept if "timing_s/step" in line]
    wall = lines(ended, STEP_DONE)[-1] - (lines(ended, STEP_DONE)[0] - seconds[0])
    events: list[dict[str, Any]] = []
    for fault, at, noticed, back in zip(faults, happened, told, again, strict=True):
        begun = max([end for end in ends if end <= at], default=at)
        events.append(
            {"fault": fault, "detect_s": round(noticed - at, 2), "recover_s": round(back - noticed, 2),
             "lost_s": round(at - begun, 2)}
        )  # fmt: skip
    lost_steps = min(1.0, mean(event["lost_s"] for event in events) / mean(seconds))
    idle = mean(event["detect_s"] + event["recover_s"] for event in events)
    work = STEPS_A_FAULT * STEP_S
    return {
        "ettr": round(sum(seconds) / wall, 4),
        "ettr_at_300s_steps": round(work / (work + idle + lost_steps * STEP_S), 4),
        "lost_steps_a_fault": round(lost_steps, 3),
        "detect_s_max": max(event["detect_s"] for event in events),
        "steps_made_again": len(lines(ended, STEP_DONE)) - len(seconds),
        "weights_equal": weights(ended) == weights(undisturbed) != b"",
        "false_alarms": len(lines(undisturbed, "failure ")) + len(lines(undisturbed, "waiting for rank")),
        "events": events,
    }


def main() -> int:
    """Make both runs; return 0 if the claim holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    faults = drawn(options.seed)
    with tempfile.TemporaryDirectory(prefix="hybridflow-ettr-") as folder, fork_server() as forks:
        runs = Runs(Path(folder), forks)
        runs.warm_up()
        undisturbed = runs.undisturbed(LAYOUT, MORE)
        disturbed = runs.run("disturbed", LAYOUT, faults, MORE)
        assert disturbed.status == 0, disturbed.lines[-1:]
        found = measured(disturbed, faults, undisturbed)
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    holds = found["weights_equal"] and not found["false_alarms"] and found["ettr_at_300s_steps"] >= 0.9
    return 0 if holds and found["detect_s_max"] <= WITHIN_S else 1


if __name__ == "__main__":
    sys.exit(main())
