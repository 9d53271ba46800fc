"""How well is a step's time predicted? `python -m benchmarks.step_prediction --measure --json step_prediction.json`

Six workloads (two models, each with short rows, long prompts and long responses), each on ten or so placements and
layouts of one to four ranks: real steps of PPO or GRPO are timed, and what `planning.estimate_step` says of them is
compared. What it knows of the machine are the hardware files that `hybridflow profile` wrote there before and after, of
other models on one rank and of messages between ranks, with whose predictions' geometric mean it answers; and how much
slower work is while all cores are at work (`busy`), which for each model is taken from the steps of the other. Of a
workload it knows the lengths of its responses, on all placements.

Claims:

* `step_error`: the median of |predicted / measured - 1| of a step, over all workloads and placements.
* `spearman`: the median over the workloads of the rank correlation of predicted and measured over its placements.
* `repeats`, which is no claim: the median over the workloads of the rank correlation of what was measured with itself,
  of the first round with the second. No prediction can be expected to do better.
* `best_within`: of how many workloads the placement that is predicted to be the best costs at most 10 % more than the
  best that was measured.

`--measure` profiles the machine, takes the steps and profiles it again, in some 25 minutes of two quiet cores. What it
measured it writes to `benchmarks/data`, phase by phase; without it these files are predicted, in seconds. Everything is
measured in rounds, every second one in the reverse order: the speed of a machine that others share moves within
minutes by more than placements differ. What a placement took is the median of all its steps.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean, geometric_mean, median
from typing import Any

import numpy as np

from benchmarks.measured_steps import joined, measured
from benchmarks.prediction_workloads import MODELS, WORKLOADS, Variant, Workload, config_of, starts, variants_of
from hybridflow.algorithms import algorithms
from hybridflow.cli import main as command
from hybridflow.observe import terminal
from hybridflow.placement import resolve
from hybridflow.planning.arrangement import Arrangement, arrangement_of
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.hardware_files import read_hardware
from hybridflow.planning.lengths import Lengths
from hybridflow.planning.run_spec import RunSpec
from hybridflow.planning.spec_of_config import spec_of
from hybridflow.planning.step_simulation import estimate_step
from hybridflow.registry import import_plugins
from tests.forked_ranks import fork_server

DATA = Path(__file__).with_name("data")
TIMES = DATA / "step_times.json"
HARDWARE = (DATA / "two_cores_before.yaml", DATA / "two_cores_after.yaml")
BUSY = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5)
ERROR, SPEARMAN, BEST, OF_BEST = 0.15, 0.85, 1.1, 5


def main() -> int:
    """Measure if asked to, predict, and return 0 if all claims hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--measure", action="store_true", help="take real steps, in place of those of the file")
    parser.add_argument("--times", type=Path, default=TIMES, help="the file of what was measured")
    parser.add_argument("--hardware", type=Path, nargs="+", default=HARDWARE, help="files of the machine's profiles")
    parser.add_argument("--steps", type=int, default=2, help="that are measured of each in a round, after a warm-up")
    parser.add_argument("--rounds", type=int, default=3, help="in which all is measured, every other one backwards")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of the starts that are measured, from 0")
    options = parser.parse_args()
    if options.measure:
        before, *after = options.hardware
        profile(before)
        measure(options.times, options.rounds, options.steps, options.only)
        for file in after:
            profile(file)
    records = json.loads(options.times.read_text("utf-8"))
    rows = cross_predicted(records, [read_hardware(file) for file in options.hardware])
    result = {**claims(rows), "repeats": repeats(records), "rows": rows}
    show(rows, result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["holds"] else 1


def profile(file: Path) -> None:
    """Measure the machine anew. Raises RuntimeError if that fails."""
    if status := command(["profile", "--out", str(file), "--force"]):
        raise RuntimeError(f"hybridflow profile --out {file} ended with status {status}")


def measure(file: Path, rounds: int, steps: int, only: Sequence[int] | None) -> None:
    """Measure every start, or some, in place of what the file has of them."""
    known = json.loads(file.read_text("utf-8")) if file.exists() and only else []
    chosen = [start for number, start in enumerate(starts()) if only is None or number in only]
    taken: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    # Ranks are forks of a process that has imported the engines.
    with fork_server() as environment:
        os.environ |= environment
        for number in range(rounds):
            backwards = number % 2 == 1
            for start in chosen[::-1] if backwards else chosen:
                workloads = [one for one in WORKLOADS if one.model == start.model]
                for record in measured(start, workloads, steps, backwards=backwards):
                    taken.setdefault(_subject(record), []).append(record)
                known = [one for one in known if _subject(one) not in taken]
                records = [*known, *map(joined, taken.values())]
                file.write_text("[\n" + ",\n".join(map(json.dumps, records)) + "\n]\n")


def _subject(record: Mapping[str, Any]) -> tuple[str, ...]:
    return record["model"], record["workload"], record["variant"]


def cross_predicted(records: Sequence[dict[str, Any]], profiles: Sequence[Hardware]) -> list[dict[str, Any]]:
    """Predict each model's workloads, with `busy` as the steps of the other models have it."""
    rows = []
    for model in MODELS:
        others = [one for one in records if one["model"] != model.name]
        known = [replace(one, busy=fitted_busy(others, one)) if others else one for one in profiles]
        mine = [one for one in records if one["model"] == model.name]
        rows += [mean_prediction(alike) for alike in zip(*(predictions(mine, one) for one in known), strict=True)]
    return rows


def mean_prediction(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the geometric mean of what several profiles say of a step; phases, which may take nothing, on average."""
    predicted = geometric_mean(row["predicted_s"] for row in rows)
    phases = {name: [spent, round(fmean(row["phases"][name][1] for row in rows), 4)]
              for name, (spent, _) in rows[0]["phases"].items()}  # fmt: skip
    error = predicted / rows[0]["measured_s"] - 1
    return {**rows[0], "predicted_s": round(predicted, 4), "error": round(error, 4), "phases": phases}


def fitted_busy(records: Sequence[dict[str, Any]], hardware: Hardware) -> float:
    """Return the `busy` with which the median error of these steps is least."""

    def error(busy: float) -> float:
        return float(median(abs(row["error"]) for row in predictions(records, replace(hardware, busy=busy))))

    return min(BUSY, key=error)


def predictions(records: Sequence[dict[str, Any]], hardware: Hardware) -> list[dict[str, Any]]:
    """Return a row for each record: measured and predicted seconds, of the step and of its phases."""
    rows = []
    for workload in WORKLOADS:
        mine = {one["variant"]: one for one in records if one["workload"] == workload.name}
        if not mine:
            continue
        lengths = Lengths.of([length for one in mine.values() for length in one["response_tokens"]])
        for variant in variants_of(workload.model):
            if variant.name in mine:
                rows.append(_prediction(workload, variant, mine[variant.name], lengths, hardware))
    return rows


def _prediction(
    workload: Workload, variant: Variant, record: dict[str, Any], lengths: Lengths, hardware: Hardware
) -> dict[str, Any]:
    spec, arrangement = _planned(workload, variant, lengths)
    spec = replace(spec, shares_prompts=record.get("shares_prompts", False))  # as the engine did that was measured
    estimate = estimate_step(spec, arrangement, hardware)
    phases: dict[str, float] = {}
    for name, spread in estimate.phases.items():
        method = name.rpartition(".")[2]
        phases[method] = phases.get(method, 0.0) + spread.mean
    return {
        "workload": workload.name,
        "variant": variant.name,
        "measured_s": record["step_s"],
        "predicted_s": round(estimate.seconds.mean, 4),
        "error": round(estimate.seconds.mean / record["step_s"] - 1, 4),
        "phases": {
            name: [record["phases_s"].get(name, 0.0), round(seconds, 4)] for name, seconds in sorted(phases.items())
        },
    }


@cache
def _planned(workload: Workload, variant: Variant, lengths: Lengths) -> tuple[RunSpec, Arrangement]:
    """Return what a step computes, and where: of every hardware that is tried the same."""
    config = config_of(workload, variant, Path("written", "when", "measured"))
    import_plugins(config.plugins)
    roles = algorithms.get(config.algorithm.name).roles_of(config.algorithm)
    shapes = dict.fromkeys(roles, workload.model.shape)
    prompts = Lengths((float(workload.prompt_tokens),))
    spec = spec_of(config, shapes=shapes, prompt_tokens=prompts, response_tokens=lengths)
    return spec, arrangement_of(resolve(config, roles))


def claims(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what is claimed, and whether it holds."""
    by_workload = [
        [row for row in rows if row["workload"] == name] for name in dict.fromkeys(r["workload"] for r in rows)
    ]
    error = median(abs(row["error"]) for row in rows)
    correlations = {mine[0]["workload"]: round(spearman(mine), 3) for mine in by_workload}
    chosen = {mine[0]["workload"]: round(_cost_of_choice(mine), 3) for mine in by_workload}
    best = sum(cost <= BEST for cost in chosen.values())
    return {
        "step_error": round(error, 4),
        "spearman": round(median(correlations.values()), 3),
        "spearman_of": correlations,
        "best_within": best,
        "cost_of_choice": chosen,
        "holds": error <= ERROR and median(correlations.values()) >= SPEARMAN and best >= OF_BEST,
    }


def spearman(rows: Sequence[dict[str, Any]]) -> float:
    """Return the rank correlation of measured and predicted seconds."""
    return _rank_correlation(*([row[key] for row in rows] for key in ("measured_s", "predicted_s")))


def repeats(records: Sequence[dict[str, Any]]) -> float | None:
    """Return the median rank correlation of the first round with the second; None: there was one round only."""
    if any(len(record["rounds_s"]) == 1 for record in records):
        return None
    found = []
    for name in dict.fromkeys(record["workload"] for record in records):
        rounds = [record["rounds_s"] for record in records if record["workload"] == name]
        found.append(_rank_correlation(*([median(one[number]) for one in rounds] for number in (0, 1))))
    return round(median(found), 3)


def _rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1]) if len(first) > 1 else 1.0


def _cost_of_choice(rows: Sequence[dict[str, Any]]) -> float:
    """Return what the placement that is predicted to be the best took, as a multiple of the best."""
    chosen = min(rows, key=lambda row: float(row["predicted_s"]))
    return float(chosen["measured_s"] / min(row["measured_s"] for row in rows))


def show(rows: Sequence[dict[str, Any]], result: dict[str, Any]) -> None:
    """Print the table."""
    for line in _lines(rows, result):
        terminal.say(line)


def _lines(rows: Sequence[dict[str, Any]], result: dict[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys(row["workload"] for row in rows):
        correlation, cost = result["spearman_of"][name], result["cost_of_choice"][name]
        yield f"{name}: Spearman {correlation:.2f}, the choice costs {cost:.2f} times the best"
        for row in (row for row in rows if row["workload"] == name):
            yield (
                f"  {row['variant']:36} measured {row['measured_s']:7.3f} s  predicted {row['predicted_s']:7.3f} s  "
                f"{row['error']:+.0%}"
            )
    yield f"median error {result['step_error']:.1%} (at most {ERROR:.0%} is claimed)"
    again = result["repeats"]
    of_rounds = "measured in one round" if again is None else f"of one measured round with the other {again:.2f}"
    yield f"median Spearman {result['spearman']:.2f} (at least {SPEARMAN}); {of_rounds}"
    yield f"the choice is within 10 % of the best for {result['best_within']} workloads (at least {OF_BEST})"


if __name__ == "__main__":
    sys.exit(main())
