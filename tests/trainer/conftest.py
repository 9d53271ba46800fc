"""Whole runs by the command line: real Ray, Megatron and vLLM. What several tests read is run once."""

from __future__ import annotations

import gzip
import json
import os
import signal
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.docs.metric_names import untold
from tests.forked_ranks import ALONE
from tests.observe.trace_format import violations
from tests.trainer.processes import exposed, gone_within, left_of, marked, start, start_marked, wait_until

SMALL = ["rollout.max_concurrent_rows=64", "trainer.validation_prompts=64"]
SIZES = ("trainer.steps=3", "trainer.log_rollouts_every=1", "trainer.save_every=3")
# On the same two ranks: the actor as tensor 2 × data 1, the critic as tensor 1 × data 2, the reference as pipeline 2.
LAYOUTS = (
    "actor.parallel.sequence=true",
    "actor.recompute=full",
    "critic.parallel.tensor=1",
    "critic.optimizer.distributed=true",
    "reference.parallel.tensor=1",
    "reference.parallel.pipeline=2",
)
# A shaping that remembers, so that a resumed run shows whether it does.
SHAPED = ("+algorithm.reward_shapings={missing_eos: {penalty: 0.1}, running_norm: {}}",)
# A step more than the three of others: it is ended twice before its last.
PPO_SIZES = (
    "algorithm.prompts_per_step=129",
    "algorithm.critic_warmup_steps=1",
    "trainer.steps=4",
    "trainer.log_rollouts_every=1",
    "trainer.save_every=4",
)
FAULTS = "plugins=[benchmarks.fault_plugin]"  # nothing fails unless the environment says so
PPO = ("experiment=addition", *SHAPED, *LAYOUTS, *PPO_SIZES, FAULTS)
ONE_RANK = ("placement.pools.main=1", "actor.parallel.tensor=1")
# A reward model and a cost model, a loss without a gradient, and nothing to do: the jobs of one sweep, a file each.
JUDGES = ("reward", "cost", "flat", "idle")
JUDGES_FILES = {
    "my_losses.py": """
from hybridflow.losses.preference_losses import bradley_terry, pair_losses
from hybridflow.losses.token_loss import TokenLoss

@pair_losses.register("flat")
def flat(chosen, rejected):
    found = bradley_terry(chosen, rejected)
    return TokenLoss(0 * found.loss, found.metrics)
""",
    "options/experiment/reward.yaml": """
# @package _global_
defaults: [addition_reward]
algorithm: {prompts_per_step: 129, minibatches: 2}
reward_model: {optimizer: {lr: 2.0e-3}}
trainer: {steps: 24, validate_every: 0}
""",
    "options/experiment/cost.yaml": """
# @package _global_
defaults: [addition_cost, override /algorithm: reward_model] # as train-reward, which the sweep is of
algorithm: {pair_loss: signed_cost, prompts_per_step: 64}
reward_model: {optimizer: {lr: 2.0e-3}}
trainer: {steps: 20, validate_every: 0}
""",
    "options/experiment/flat.yaml": """
# @package _global_
defaults: [addition_reward]
algorithm: {prompts_per_step: 4, pair_loss: flat}
reward_model: {optimizer: {warmup_steps: 0}}
trainer: {steps: 1, validate_every: 0}
""",
    "options/experiment/idle.yaml": """
# @package _global_
defaults: [addition_reward]
trainer: {steps: 0}
""",
}
# Two training ranks and a rollout rank. The entropy lets every step learn, whatever the rewards are.
APART = (
    "experiment=addition",
    "placement=rollout_pool",
    "algorithm=grpo",
    "algorithm.prompts_per_step=8",
    "algorithm.policy_loss.entropy_coef=0.01",
    "+reward.graders={exact: 1.0, has_seven: 0.0}",  # so that rewards are those of the first
    *SIZES,
    # Two sampled answers to each question, also to those of a set.
    "trainer.validation_samples=2",
    "trainer.validation_temperature=1",
    "+trainer.validation_sets.small={name: addition, options: {max_operand: 9, zero_pad: true, reverse_answer: true}}",
    "trainer.keep_best=pass@2",
    "trainer.profile_steps=[1]",
    "trainer.hardware=cpu",
)


@dataclass(frozen=True)
class Ran:
    """A finished run: its exit status, what it printed, and its folder."""

    status: int
    output: str
    folder: Path

    @property
    def steps(self) -> list[dict[str, float]]:
        """The metrics of each step."""
        lines = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        return [line for line in lines if "timing_s/step" in line]

    @property
    def validations(self) -> list[dict[str, float]]:
        """The metrics of each validation."""
        lines = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        return [line for line in lines if "validation/accuracy" in line]

    def events(self, event: str) -> list[dict[str, object]]:
        """The events of a kind; none before there is a file of them."""
        file = self.folder / "events.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [line for line in lines if line["event"] == event]

    @property
    def timeline(self) -> list[dict[str, Any]]:
        """What ranks did and when, as trace events."""
        return [event for event in self._trace_events if event["ph"] == "X"]

    @property
    def tracks(self) -> dict[str, list[str]]:
        """The ranks of each pool, by the names that a trace viewer shows."""
        names = [
            (event["name"], event["pid"], event["args"]["name"]) for event in self._trace_events if event["ph"] == "M"
        ]
        pools = {pid: label for kind, pid, label in names if kind == "process_name"}
        ranks = [(pools[pid], label) for kind, pid, label in names if kind == "thread_name"]
        return {pool: sorted(label for own, label in ranks if own == pool) for pool in pools.values()}

    @property
    def _trace_events(self) -> list[dict[str, Any]]:
        text = (self.folder / "timeline.json").read_text()
        assert not violations(text)
        events: list[dict[str, Any]] = json.loads(text)
        return events

    @property
    def traces(self) -> list[str]:
        """The torch traces that its ranks have written."""
        return sorted(file.name.removesuffix(".json.gz") for file in (self.folder / "traces").iterdir())

    def traced(self, name: str) -> set[str]:
        """The names of what a rank did in a step of which it wrote a torch trace."""
        with gzip.open(self.folder / "traces" / f"{name}.json.gz") as stream:
            events = json.load(stream)["traceEvents"]
        return {event["name"] for event in events if event.get("ph") == "X"}

    def overlap_s(self, some: Collection[str], others: Collection[str]) -> float:
        """Seconds in which some kinds of calls, as `role.method`, ran at the same time as others."""
        calls = [(event["name"], event["ts"], event["ts"] + event["dur"]) for event in self.timeline]
        first, second = ([(begin, end) for name, begin, end in calls if name in names] for names in (some, others))
        assert {*some, *others} <= {name for name, _, _ in calls}
        return sum(max(0, min(a[1], b[1]) - max(a[0], b[0])) for a, b in product(first, second)) / 1e6

    @property
    def metric_names(self) -> set[str]:
        """Everything that it measured, or that its jobs did."""
        files = self.folder.rglob("metrics.jsonl")
        return {name for file in files for line in file.read_text().splitlines() for name in json.loads(line)}

    @property
    def accuracy(self) -> list[float]:
        """Each validation's accuracy."""
        return [line["validation/accuracy"] for line in self.validations]


Launch = Callable[..., Ran]


@dataclass(frozen=True)
class Ended:
    """A run that was ended: how, the seconds until no process of it was left, and those that were."""

    status: int
    output: str
    seconds: float
    left: list[str]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the addition model in it."""
    from hybridflow.cli import model

    folder = tmp_path_factory.mktemp("runs")
    assert model.run(["addition", "--out", str(folder / "models/addition")]) == 0
    return folder


@pytest.fixture(scope="session")
def launch(place: Path, forks: dict[str, str]) -> Launch:
    """`launch(subcommand, name, *overrides)`: run it to its end."""

    def run(subcommand: str, name: str, *overrides: str) -> Ran:
        process = start([subcommand, *SMALL, f"run.name={name}", *overrides], place, **forks)
        output, _ = process.communicate(timeout=600)  # a sweep, on a busy machine
        ran = Ran(process.returncode, output, place / "runs" / name)
        assert untold(ran.metric_names) == [], "docs/metrics.md names what a run measures"
        return ran

    return run


@pytest.fixture(scope="session")
def warm(launch: Launch) -> Ran:
    """A short warm-up of the addition model; under the name that experiment=addition starts from."""
    overrides = ("experiment=addition_warmup", "trainer.steps=110", "trainer.validate_every=0", *ONE_RANK)
    return launch("sft", "addition_warmup", *overrides)


@pytest.fixture(scope="session")
def ppo(launch: Launch, warm: Ran) -> Ran:
    """Four steps of PPO, saved after the last; in the first of them only the critic learns."""
    assert warm.status == 0, warm.output
    return launch("train", "ppo", *PPO)


@pytest.fixture(scope="session")
def killed(place: Path, warm: Ran, forks: dict[str, str]) -> Ended:
    """The run of `ppo`, its driver ended by SIGKILL in its second step or soon after; every step is saved.

    Its ranks notice by themselves that the driver is gone: nobody ends the forks that they are.
    """
    assert warm.status == 0, warm.output
    saved = place / "runs/interrupted/checkpoints/step-000001"
    (place / "forks").mkdir()
    own = {**forks, ALONE: str(place / "forks")} if forks else {}
    return ended(place, saved.exists, lambda driver, mark: os.kill(driver, signal.SIGKILL), **own)


@pytest.fixture(scope="session")
def interrupted(place: Path, killed: Ended, forks: dict[str, str]) -> Ended:
    """The run of `killed`, resumed, and ended by SIGTERM to all of its processes as it takes up its next step.

    That is saved in any case, not because it is due.
    """
    assert killed.status == -signal.SIGKILL, killed.output

    def end(driver: int, mark: int) -> None:
        os.kill(driver, signal.SIGTERM)  # `timeout` sends it to its child, and then to the child's group
        for process in marked(mark):  # as Slurm does
            process.terminate()

    run = place / "runs/interrupted"
    return ended(place, lambda: len(Ran(0, "", run).events("start")) == 2, end, "trainer.save_every=0", **forks)


def ended(
    place: Path, far_enough: Callable[[], bool], end: Callable[[int, int], None], *overrides: str, **forks: str
) -> Ended:
    """Start the run of `ppo`, or go on with it, and end it, given its driver and mark, once it has got far enough."""
    own = ("run.name=interrupted", "trainer.save_every=1", *overrides)
    process, mark = start_marked(["train", *SMALL, *PPO, *own], place, **forks)
    wait_until(process, far_enough)
    assert left_of(mark), "the mark must find the processes of a running job"
    assert exposed(mark) == [], "nothing of a run can be reached from another machine"
    begin = time.monotonic()
    end(process.pid, mark)
    output, _ = process.communicate(timeout=60)
    left = gone_within(mark, 20.0)
    return Ended(process.returncode, output, time.monotonic() - begin, left)


@pytest.fixture(scope="session")
def apart(launch: Launch, warm: Ran) -> Ran:
    """Three steps of GRPO that generates on a pool of its own, each of them saved."""
    assert warm.status == 0, warm.output
    return launch("train", "apart", *APART, "trainer.save_every=1", "trainer.keep_last=3")


@pytest.fixture(scope="session")
def judges(place: Path, launch: Launch, warm: Ran) -> Ran:
    """A sweep of `train-reward` over JUDGES; of its last job there is an earlier run."""
    assert warm.status == 0, warm.output
    for name, text in JUDGES_FILES.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text.lstrip())
    (place / "runs/judges/3").mkdir(parents=True)
    (place / "runs/judges/3/metrics.jsonl").write_text("{}\n")
    choices = f"experiment={','.join(JUDGES)}"
    return launch("train-reward", "judges", "-m", "-cd", "options", "plugins=[my_losses]", choices, *ONE_RANK)


@pytest.fixture(scope="session")
def reward_model(judges: Ran) -> Ran:
    """The job of `judges` that trained a reward model."""
    return Ran(judges.status, judges.output, judges.folder / "0")


@pytest.fixture(scope="session")
def cost_model(judges: Ran) -> Ran:
    """The job of `judges` that trained a cost model."""
    return Ran(judges.status, judges.output, judges.folder / "1")
