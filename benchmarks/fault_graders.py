"""Rows of `benchmarks.faults`: a grader raises, sleeps, gives NaN, or not one grade a row.

Where none may fail, the run ends and says which; where some may, it goes on without these rows. Those are counted as
masked, not as lost: they were sampled, and nothing is learned from them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.fault_grader_plugin import fails
from benchmarks.fault_plugin import MARK
from benchmarks.fault_runs import WITHIN_S, Ended, Result, Row, Runs, run_name, seconds_between, weights
from benchmarks.fault_series import again

KINDS = {
    "raises": "RuntimeError: a fault that a benchmark asked for",
    "sleeps": "it gave no grade within 1 s (reward.grader_deadline_s)",
    "nan": "nan",
    "wrong_length": "[0.0, 1.0]",
}
WRONG_COUNT = "wrong_count"  # nobody knows whose grades are missing, so all rows of the batch have failed
SHARE = 0.2


def settings(kind: str, share: float) -> tuple[str, ...]:
    """Return the settings of a run with such a grader."""
    return (
        "plugins=[benchmarks.fault_plugin,benchmarks.fault_grader_plugin]",
        f"reward.grader=fault_{kind}",
        f"reward.max_failed_share={share}",
        "reward.grader_deadline_s=1.0",
    )


def made(runs: Runs, kind: str, share: float) -> Ended:
    """Make a run whose grader fails in this way."""
    name = run_name(f"grader {kind} {share}")
    environment = {MARK: str(runs.place / f"{name}.mark")}
    return again(runs, name, settings(kind, share), environment)


def ends(kind: str, runs: Runs) -> Result:
    """Let none fail: the run ends, and its last line has grader, response, answer and cause."""
    ended = made(runs, kind, 0.0)
    detect_s = seconds_between(ended.happened(), ended.first(f"grader 'fault_{kind}'"))
    told = ended.last
    said = f"grader 'fault_{kind}'" in told and "(answer '" in told and KINDS.get(kind, "grades") in told
    return {
        "pass": ended.status == 1 and said and detect_s is not None and detect_s <= WITHIN_S,
        "detect_s": detect_s,
        "status": ended.status,
        "told": told,
    }


def goes_on(kind: str, runs: Runs) -> Result:
    """Let some fail: the run goes on, and they are masked alike however they failed."""
    ended = made(runs, kind, SHARE)
    undisturbed = runs.undisturbed("colocated", settings("zero", SHARE))
    alike = runs.undisturbed("colocated", settings("nan", SHARE)) if kind != "nan" else ended
    lost, twice = prompts(undisturbed) - prompts(ended), prompts(ended) - prompts(undisturbed)
    lines = list(rollouts(ended))
    masked = [line for line in lines if line["rewards"] is None]
    found = {
        "rows_lost": lost.total(),
        "rows_twice": twice.total(),
        "rows_masked": len(masked),
        "weights_equal": weights(ended) == weights(alike) != b"",
        "as_reward_0": weights(ended) == weights(undisturbed),
    }
    right = all((line["rewards"] is None) == fails(str(line["answer"])) for line in lines)
    counted = sum(line.get("reward/failed_grades", 0) for line in metrics(ended)) == len(masked) > 0
    whole = found["weights_equal"] and not lost and not twice and not found["as_reward_0"]
    return {
        "pass": ended.status == 0 and bool(whole) and right and counted and means_are_of_others(ended),
        "status": ended.status,
        **found,
        "told": f"reward/failed_grades counts {len(masked)}" if counted else ended.last,
    }


def rollouts(ended: Ended) -> Iterator[dict[str, object]]:
    """Yield the rows that a run has written."""
    for file in sorted((ended.folder / "rollouts").glob("*.jsonl")):
        yield from (json.loads(line) for line in file.read_text().splitlines())


def metrics(ended: Ended) -> list[dict[str, float]]:
    """Return the metrics of a run's steps."""
    lines = (ended.folder / "metrics.jsonl").read_text().splitlines() if ended.folder.is_dir() else []
    return [line for line in map(json.loads, lines) if "timing_s/step" in line]


def prompts(ended: Ended) -> Counter[tuple[object, object]]:
    """Count the prompts of each step."""
    return Counter((line["step"], line["prompt"]) for line in rollouts(ended))


def means_are_of_others(ended: Ended) -> bool:
    """Tell whether the mean reward of each step is that of the rows with a grade."""
    for line in metrics(ended):
        own = [row["rewards"] for row in rollouts(ended) if row["step"] == line["step"] and row["rewards"] is not None]
        if abs(sum(map(float, own)) / len(own) - line["reward/mean"]) > 1e-6:  # type: ignore[arg-type]
            return False
    return True


def _row(kind: str, share: float, make: Callable[[str, Runs], Result]) -> Row:
    return Row(f"grader {kind.replace('_', ' ')}: max_failed_share={share:g}", partial(make, kind))


ROWS = (
    *(row for kind in KINDS for row in (_row(kind, 0.0, ends), _row(kind, SHARE, goes_on))),
    _row(WRONG_COUNT, 0.0, ends),
)
