"""Does every algorithm learn? `python -m benchmarks.learning --json learning.json [--plot learning.svg]`

Claim: on `experiment=addition`, from one warm start and with the settings that come with each algorithm but for those
below, greedy accuracy on held-out sums ends at least 0.25 above where it began, for each of three seeds; and Safe-RLHF
ends with the mean cost of its samples (those with a 7 in them) under `lagrange.limit`. The same holds for full RLHF,
`hybridflow rlhf` as it comes, whose rewards are those of a model that learned from pairs: its curve is that of the last
stage, PPO, and all its stages are made anew for each seed.

`algorithms` gives for each `before`, `after` and `std`: means over seeds of accuracy, and the deviation of `after`
between seeds. Runs are whole runs by the command line, `--jobs` at a time, with the run folders in `--folder`. Cases
that the JSON file has from the same settings are not run again, so what was interrupted goes on; remove the file to
measure anew.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

from rich.progress import Progress

from benchmarks.learning_plot import svg

COMMON = (
    "trainer.steps=100",
    "trainer.validate_every=10",
    "trainer.log_rollouts_every=0",
    "trainer.stop_at_accuracy=0.6",  # far enough above the start; what an algorithm could still learn is not asked here
    "placement.pools.main=1",  # one rank: two runs at a time need no more time than one run on two cores
    "actor.parallel.tensor=1",
)
CASES: dict[str, tuple[str, ...]] = {
    "ppo": (),
    "grpo": (),
    "dr_grpo": (),
    "dapo": (),
    "gspo": (),
    "cispo": (),
    "rloo": (),
    "remax": ("algorithm.prompts_per_step=512", "actor.optimizer.lr=1e-4", "trainer.steps=200"),
    "reinforce_plus_plus": ("algorithm.prompts_per_step=512",),
    "reinforce_plus_plus_baseline": (),
    "safe_rlhf": ("trainer.stop_at_accuracy=null",),
    "dpo": ("experiment=addition_dpo", "algorithm.prompts_per_step=512", "trainer.steps=200"),
    "rlhf": (),
}
LAYERS = {"sft": 2, "sft-judge": 4}  # of the models that stages of rlhf start from
GAIN, COST_OVER = 0.25, 10  # the least gain in accuracy; the last steps over which a cost is averaged


def main() -> None:
    """Run the cases that are missing, and write the JSON after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("learning.json"), help="where to write the result")
    parser.add_argument("--plot", type=Path, help="where to draw the curves, as SVG")
    parser.add_argument("--folder", type=Path, default=Path("runs/learning"), help="where the runs are")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    folder = options.folder.absolute()
    cases: dict[str, Any] = json.loads(options.json.read_text())["cases"] if options.json.exists() else {}
    warm, random = warm_start(folder), {stage: random_model(folder, layers) for stage, layers in LAYERS.items()}
    wanted = {f"{name} {seed}": (name, seed) for name in options.only for seed in options.seeds}
    settings = {key: list(overrides(*of)) for key, of in wanted.items()}
    missing = [key for key in wanted if cases.get(key, {}).get("settings") != settings[key]]
    with ThreadPoolExecutor(options.jobs) as jobs, Progress() as progress:
        bar = progress.add_task("runs", total=len(missing))
        running = {jobs.submit(measured, folder, warm, random, *wanted[key]): key for key in missing}
        for done in as_completed(running):
            key = running[done]
            cases[key] = {"settings": settings[key], **done.result()}
            options.json.write_text(json.dumps({"algorithms": summary(cases), "cases": cases}, indent=1) + "\n")
            progress.print(f"{key}: {cases[key]['accuracy']}")
            progress.advance(bar)
    print(json.dumps(summary(cases), indent=1))
    if options.plot:
        options.plot.write_text(svg({name: curves(cases, name) for name in CASES if curves(cases, name)}, GAIN))


def overrides(name: str, seed: int) -> tuple[str, ...]:
    """Return the settings of a case; a later one wins."""
    if name == "rlhf":
        return (*CASES[name], f"run.seed={seed}")
    experiment = () if any(o.startswith("experiment=") for o in CASES[name]) else (
        "experiment=addition", f"algorithm={name}")  # fmt: skip
    own = {o.partition("=")[0]: o for o in (*experiment, *COMMON, *CASES[name])}
    return (*own.values(), f"run.seed={seed}")


def warm_start(folder: Path) -> Path:
    """Return the model that all begin with, made if it is not there."""
    warm = folder / "addition_warmup/model"
    if not warm.is_dir():
        model = random_model(folder)
        hybridflow(folder, "sft", "experiment=addition_warmup", f"actor.model.path={model}", f"run.root={folder}")
    return warm


def random_model(folder: Path, layers: int = 2) -> Path:
    """Return a model that has learned nothing, made if it is not there."""
    model = folder / f"models/addition_{layers}_layers"
    if not model.is_dir():
        hybridflow(folder, "model", "addition", "--layers", str(layers), "--out", str(model))
    return model


def measured(folder: Path, warm: Path, random: dict[str, Path], name: str, seed: int) -> dict[str, Any]:
    """Run a case; accuracy by step, and the mean costs at its two ends if it has any.

    Args:
        warm: the model that all begin with, but for rlhf.
        random: by stage of rlhf, the model that this begins with.
    """
    run = folder / f"{name}_{seed}"
    if name == "rlhf":
        starts = [f"{stage}.actor.model.path={model}" for stage, model in random.items()]
        hybridflow(folder, "rlhf", f"run.root={run}", *overrides(name, seed), *starts)
        run /= "addition_model_reward"
    else:
        place = (f"run.root={folder}", f"run.name={run.name}", f"actor.model.path={warm}", "trainer.resume=never")
        hybridflow(folder, "train", *overrides(name, seed), *place)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = {"accuracy": {line["step"]: line["validation/accuracy"] for line in lines if "validation/accuracy" in line}}
    costs = [line["cost/mean"] for line in lines if "cost/mean" in line]
    return found | ({"cost": [costs[0], mean(costs[-COST_OVER:])]} if costs else {})


def hybridflow(folder: Path, *arguments: str) -> None:
    """Run a command to its end, a thread a process; what it printed goes to `folder/log.txt`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a") as log:
        command = [sys.executable, "-m", "hybridflow", *arguments]
        subprocess.run(command, stdout=log, stderr=log, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def curves(cases: dict[str, Any], name: str) -> list[dict[int, float]]:
    """Accuracy by step, for each seed of an algorithm, in their order."""
    return [
        {int(step): value for step, value in case["accuracy"].items()}
        for key, case in sorted(cases.items())
        if key.rpartition(" ")[0] == name
    ]


def summary(cases: dict[str, Any]) -> dict[str, Any]:
    """By algorithm: before, after, std, whether each seed gained enough, and costs."""
    found = {}
    for name in CASES:
        runs = curves(cases, name)
        if not runs:
            continue
        ends = [(run[0], run[max(run)]) for run in runs]
        found[name] = {
            "before": round(mean(a for a, _ in ends), 4),
            "after": round(mean(b for _, b in ends), 4),
            "std": round(pstdev(b for _, b in ends), 4),
            "seeds": len(ends),
            "learns": all(b - a >= GAIN for a, b in ends),
        }
        costs = [case["cost"] for key, case in cases.items() if key.rpartition(" ")[0] == name and "cost" in case]
        if costs:
            found[name] |= {"cost_before": round(mean(a for a, _ in costs), 4),
                            "cost_after": round(mean(b for _, b in costs), 4)}  # fmt: skip
    return found


if __name__ == "__main__":
    main()
