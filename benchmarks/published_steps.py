"""Do the simulators predict steps that others measured? `python -m benchmarks.published_steps --json steps.json`

NVIDIA NeMo-RL publishes GRPO step times with full layouts (`benchmarks/data/nemo_rl_sources.yaml`): 8 to 671 billion
parameters on 8 to 512 GPUs of two kinds, sync and some steps off, in BF16 and FP8. Six constants of its software are
fitted for all of them (`Constants`); all else is the simulators' arithmetic on our hardware files. A row is predicted
from constants that no row of the same run, in any release, had a part in.

Claims, over all rows and by release: `mape`, the mean of |predicted / published - 1|, is at most 0.25; `kendall`, of
the order of all rows, is at least 0.8; and of every pair of sync and one step off of one model, system and release
the prediction says which is faster (`signs` of `pairs`), also where it is sync. `baseline_mape` is what one constant
comes to, the share of the GPUs' peak that a step reaches, whatever the layout.

`--write` keeps the constants in `benchmarks/data/nemo_rl_constants.yaml`, where a test begins.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.fitted_constants import Fit, fit, kendall, predicted_left_out
from benchmarks.published_rows import DATA, PublishedStep, published_steps, sources
from benchmarks.published_simulation import Constants, model_of, phases_of, predicted, prompt_tokens, usual
from hybridflow.planning.hardware_files import read_hardware

CONSTANTS = DATA / "nemo_rl_constants.yaml"
MAPE = 0.25
KENDALL = 0.8
ROUNDS = 3  # of the fits without a row


def kept_constants() -> Constants:
    """Read the constants that were fitted last."""
    return Constants(**yaml.safe_load(CONSTANTS.read_text("utf-8")))


def keep_constants(constants: Constants) -> None:
    """Write constants for `kept_constants`."""
    rounded = {name: float(f"{value:.4g}") for name, value in asdict(constants).items()}
    head = "# Fitted to nemo_rl_steps.csv by `python -m benchmarks.published_steps --write`, in seconds.\n"
    CONSTANTS.write_text(head + yaml.safe_dump(rounded, sort_keys=False), "utf-8")


def fit_steps(steps: Sequence[PublishedStep], start: Constants, rounds: int = 40) -> Fit:
    """Fit the constants to steps."""
    return fit(lambda rows, at: _of_rows(steps, rows, at), _published(steps), start.logarithms, rounds)


def predicted_unseen(steps: Sequence[PublishedStep], fitted: Fit, rounds: int = ROUNDS) -> np.ndarray:
    """Predict each step from constants that its run had no part in."""
    cases = [step.case for step in steps]
    return predicted_left_out(lambda rows, at: _of_rows(steps, rows, at), _published(steps), fitted, cases, rounds)


def figures(steps: Sequence[PublishedStep], seconds: np.ndarray) -> dict[str, Any]:
    """Return what is claimed of predictions."""
    errors = np.abs(seconds / _published(steps) - 1)
    pairs = sync_pairs(steps)
    right = [_faster(seconds, pair) == _faster(_published(steps), pair) for pair in pairs]
    return {
        "rows": len(steps),
        "mape": round(float(errors.mean()), 3),
        "median_error": round(float(np.median(errors)), 3),
        "kendall": round(kendall(seconds.tolist(), [step.step_s for step in steps]), 3),
        "pairs": len(pairs),
        "signs": sum(right),
        "wrong_signs": [
            f"{steps[i].release} {steps[i].name}" for (i, _), good in zip(pairs, right, strict=True) if not good
        ],
    }


def sync_pairs(steps: Sequence[PublishedStep]) -> list[tuple[int, int]]:
    """Return the places of steps of sync and one step off that are alike but for their layouts and GPUs."""

    def alike(step: PublishedStep) -> tuple[object, ...]:
        return (step.release, step.system, step.precision, step.model, step.max_tokens)

    return [
        (one, other)
        for one, first in enumerate(steps)
        for other, second in enumerate(steps)
        if (first.steps_off, second.steps_off) == (0, 1) and alike(first) == alike(second)
    ]


def baseline(steps: Sequence[PublishedStep]) -> np.ndarray:
    """Predict seconds from operations and the GPUs' peak alone, with the share of it that fits best."""
    shares = np.array([_peak_s(step) / step.step_s for step in steps])
    return np.array([_peak_s(step) for step in steps]) / np.exp(np.log(shares).mean())


def _peak_s(step: PublishedStep) -> float:
    active = 1e9 * sources()["models"][step.model]["active_parameters"]
    tokens = step.rollouts * (step.response_tokens + prompt_tokens())
    peak = read_hardware(sources()["systems"][step.system]).flops[model_of(step, trains=True).dtype]
    passes = 1 + step.score_passes + 3  # decoding, scoring, and a training step's three
    return 2 * active * passes * tokens / (step.gpus * peak)


def _faster(seconds: np.ndarray, pair: tuple[int, int]) -> bool:
    return bool(seconds[pair[1]] < seconds[pair[0]])


def _published(steps: Sequence[PublishedStep]) -> np.ndarray:
    return np.array([step.step_s for step in steps])


def _of_rows(steps: Sequence[PublishedStep], rows: Sequence[int], logarithms: np.ndarray) -> np.ndarray:
    return predicted([steps[row] for row in rows], Constants.of(logarithms))


def validation(start: Constants | None = None, rounds: int = ROUNDS) -> dict[str, Any]:
    """Fit, predict every row unseen; return what `--json` says."""
    steps = published_steps()
    fitted = fit_steps(steps, start or usual())
    constants = Constants.of(fitted.logarithms)
    unseen = predicted_unseen(steps, fitted, rounds)
    by_release = {
        release: figures(*_those(steps, unseen, release)) for release in dict.fromkeys(step.release for step in steps)
    }
    overall = figures(steps, unseen)
    return {
        **overall,
        "baseline_mape": figures(steps, baseline(steps))["mape"],
        "in_sample_mape": figures(steps, predicted(steps, constants))["mape"],
        "constants": {name: float(f"{value:.4g}") for name, value in asdict(constants).items()},
        "by_release": by_release,
        "table": [_row(step, float(seconds), constants) for step, seconds in zip(steps, unseen, strict=True)],
        "holds": overall["mape"] <= MAPE and overall["kendall"] >= KENDALL and overall["signs"] == overall["pairs"],
    }


def _those(steps: list[PublishedStep], seconds: np.ndarray, release: str) -> tuple[list[PublishedStep], np.ndarray]:
    mine = [place for place, step in enumerate(steps) if step.release == release]
    return [steps[place] for place in mine], seconds[mine]


def _row(step: PublishedStep, seconds: float, constants: Constants) -> dict[str, Any]:
    return {
        "release": step.release,
        "run": step.name,
        "published_s": step.step_s,
        "predicted_s": round(seconds, 1),
        "error": round(seconds / step.step_s - 1, 3),
        "phases_s": {name: round(value, 1) for name, value in phases_of(step, constants).items()},
    }


def lines(result: dict[str, Any]) -> list[str]:
    """Say the result in lines."""
    said = [
        f"{row['release']:5}{row['run']:46}{row['published_s']:8.1f}{row['predicted_s']:8.1f}{row['error']:+7.0%}  "
        + " ".join(f"{name} {value:.0f}" for name, value in row["phases_s"].items() if value)
        for row in result["table"]
    ]
    for name, of in ({"all": result} | result["by_release"]).items():
        said.append(
            f"{name}: {of['rows']} rows, MAPE {of['mape']:.1%} (at most {MAPE:.0%}), Kendall {of['kendall']:.2f} (at "
            f"least {KENDALL}), faster of sync and one step off {of['signs']} of {of['pairs']}"
        )
    said.append(f"one constant alone: MAPE {result['baseline_mape']:.1%}; constants: {result['constants']}")
    return said


def main() -> int:
    """Predict the published steps; return 0 if the claims hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    result = validation()
    print("\n".join(lines(result)))
    if options.write:
        keep_constants(Constants(**result["constants"]))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
