"""Where roles run changes no number: PPO on four placements, and what they show of work at the same time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hybridflow.controller.idle_time import covered
from tests.trainer import recorded_rollouts, slow_grader
from tests.trainer.conftest import Launch, Ran
from tests.trainer.test_checkpoints import assert_same_results, metrics, saved

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(900)]  # warm runs before the first

SIZES = (
    "algorithm.prompts_per_step=33",
    "algorithm.critic_warmup_steps=0",
    "trainer.steps=2",
    "trainer.save_every=2",
    "trainer.log_rollouts_every=1",
    "trainer.timeline_every=1",
    "algorithm.policy_loss.entropy_coef=0.01",  # so that every step learns, whatever the rewards are
)
BY_GRADER = ("experiment=addition", *SIZES)
ONE_RANK = ("actor.parallel.tensor=1", "actor.recompute=none")  # of each role


def placed(roles: dict[str, str], **pools: int) -> tuple[str, ...]:
    """Overrides for these pools, in their order, with roles on other ones than the first."""
    own = [f"+placement.pools.{name}={slots}" for name, slots in pools.items()]
    return ("~placement.pools.main", *own, *(f"+placement.roles.{role}={pool}" for role, pool in roles.items()))


ROLES = ("actor", "critic", "reference", "reward")
PLACEMENTS = {
    "colocated": ("placement.pools.main=1",),
    "split": ("placement=split", "placement.pools.policy=1", "placement.pools.judges=1"),
    "standalone": ("placement=standalone", *(f"placement.pools.{role}=1" for role in ROLES)),
    "rollout_apart": ("placement=rollout_pool", "placement.pools.train=1"),
    "rollout_beside_judges": placed({"actor": "policy", "rollout": "judges", "critic": "judges"}, judges=1, policy=1),
}


@pytest.fixture(scope="module")
def ran(launch: Launch, warm: Ran) -> dict[str, Ran]:
    """Two steps of PPO with a reward model on each placement, of roles with a rank each."""
    assert warm.status == 0, warm.output
    few = ("algorithm.prompts_per_step=64", "trainer.steps=3", "reward_model.optimizer.warmup_steps=0")
    judge = launch("train-reward", "judge", "experiment=addition_reward", *few, *ONE_RANK, "placement.pools.main=1")
    assert judge.status == 0, judge.output
    own = ("experiment=addition_model_reward", f"reward.model.path={judge.folder}/model", *SIZES, *ONE_RANK)
    return {name: launch("train", name, *own, *places) for name, places in PLACEMENTS.items()}


def assert_same_numbers(ran: Ran, other: Ran) -> None:
    """All that runs leave, but for random states of processes that have other roles too; those of engines are."""
    assert_same_results(ran, other)
    states, others = (random_states(each) for each in (ran, other))
    for name, state in states.items():
        assert torch.equal(state, others.pop(name)), name
    assert len(states) >= 2 * 9 and not others
    tensors, others_tensors = (
        {name: file for name, file in saved(each).items() if "/rng-" not in name} for each in (ran, other)
    )
    assert tensors == others_tensors != {}


def random_states(ran: Ran) -> dict[str, torch.Tensor]:
    """The random states of engines in the last checkpoint of a run, by role, rank and generator."""
    newest = ran.folder / "checkpoints" / (ran.folder / "checkpoints" / "LATEST").read_text().strip()
    files = {f"{file.parent.name}/{file.name}": load_file(file) for file in newest.glob("*/rng-*.safetensors")}
    states = [(f"{file}: {name}", state) for file, all_of_it in files.items() for name, state in all_of_it.items()]
    return {name: state for name, state in states if ": engine." in name}


def test_ppo_leaves_the_same_bits_on_every_placement(ran: dict[str, Ran]) -> None:
    for name in PLACEMENTS:
        assert_same_numbers(ran[name], ran["colocated"])


def test_ppo_leaves_the_same_bits_split_over_two_ranks_each(launch: Launch, warm: Ran) -> None:
    """The actor trains as tensor 2 and generates as two replicas; critic and reference are data parallel."""
    data = [f"{role}.parallel.tensor=1" for role in ("critic", "reference")]
    colocated = launch("train", "colocated_2", *BY_GRADER, *data)
    assert_same_numbers(launch("train", "split_2", *BY_GRADER, *data, "placement=split"), colocated)


def test_where_layouts_differ_the_same_rows_give_numbers_within_1e_5(
    launch: Launch, warm: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step on rows that the first of them has sampled."""
    monkeypatch.setenv(recorded_rollouts.FOLDER, str(tmp_path))
    own = (f"plugins=[{recorded_rollouts.__name__}]", f"algorithm.name={recorded_rollouts.NAME}", "trainer.steps=1")
    critic = ("critic.parallel.tensor=1",)
    colocated = launch("train", "recorded", *BY_GRADER, *own)
    others = {
        "replayed_split": ("placement=split", "placement.pools.judges=1", *critic),
        "replayed_standalone": (
            *placed(dict.fromkeys(["critic", "reference"], "judges"), actor=1, judges=2),
            *ONE_RANK,
        ),
        "replayed_apart": ("placement=rollout_pool", "actor.parallel.tensor=1"),
    }
    expected = step_of(colocated)
    for name, places in others.items():
        found = step_of(launch("train", name, *BY_GRADER, *own, *places))
        assert {"actor/kl", "actor/pg_loss", "actor/grad_norm", "critic/grad_norm", "critic/advantages"} <= {*found}
        sampled = {key.partition("/")[0] for key in expected.keys() - found}
        assert sampled <= {"response_length", "rollout", "perf"}, "all else is measured where nothing is sampled"
        wanted = {key: expected[key] for key in found}
        assert found == pytest.approx(wanted, rel=1e-5, abs=1e-5), name


def step_of(ran: Ran) -> dict[str, float]:
    """What the only step of a run measured, but for times and memory."""
    assert ran.status == 0, ran.output
    [step] = [line for line in metrics(ran) if "critic/value_loss" in line]
    return step


UPDATES = ["actor.update_actor"], ["critic.update_critic"]
JUDGED = ["reward.compute_reward", "critic.compute_values"]
AT_ONCE = {
    "split": [
        (
            ["reference.compute_ref_log_prob", "actor.compute_log_prob"],
            ["reward.compute_reward", "critic.compute_values"],
        ),
        UPDATES,
    ],
    "standalone": [
        (["reference.compute_ref_log_prob"], JUDGED),
        (["actor.compute_log_prob"], ["reference.compute_ref_log_prob", "critic.compute_values"]),
        UPDATES,
    ],
    "rollout_beside_judges": [UPDATES],
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_roles_on_pools_of_their_own_work_at_the_same_time(ran: dict[str, Ran], name: str) -> None:
    for some, others in AT_ONCE[name]:
        assert ran[name].overlap_s(some, others) > 0, (some, others)
    idle = {pool for step in ran[name].steps for pool in step if pool.startswith("timing_s/idle/")}
    assert len(idle) == {"split": 2, "standalone": 4, "rollout_beside_judges": 2}[name]


def test_idle_seconds_are_the_gaps_of_the_timeline(ran: dict[str, Ran]) -> None:
    for each in ran.values():
        events = json.loads((each.folder / "timeline.json").read_text())
        pools = {event["args"]["pool"]: event["pid"] for event in events if event["name"] == "process_name"}
        calls = [event for event in events if event["ph"] == "X"]
        for step, line in enumerate(each.steps):
            [own] = [event for event in calls if event["name"] == f"step {step}"]
            for pool, pid in pools.items():
                spans = sorted((event["ts"], event["ts"] + event["dur"]) for event in calls if event["pid"] == pid)
                busy = covered(spans, own["ts"], own["ts"] + own["dur"])
                if pool:
                    assert line[f"timing_s/idle/{pool}"] == pytest.approx((own["dur"] - busy) / 1e6, abs=0.001)


def test_groups_are_graded_while_others_are_generated_and_no_number_changes(launch: Launch, warm: Ran) -> None:
    """From the second step on, once it is known that grading takes long; rows are sampled in waves."""
    own = (
        "experiment=addition", "algorithm=grpo", *SIZES[2:], "algorithm.prompts_per_step=16", "trainer.steps=3",
        f"plugins=[{slow_grader.__name__}]", "reward.grader=slow_exact", "rollout.max_concurrent_rows=32", *ONE_RANK,
    )  # fmt: skip
    places = placed({"reward": "judges"}, policy=1, judges=1)
    apart = launch("train", "graded_ahead", *own, *places)
    assert_same_results(apart, launch("train", "graded_after", *own, "placement.pools.main=1"))
    calls = [event["name"] for event in apart.timeline]
    assert calls.count("actor.stream_sequences") == 2, "not in the first step, nor in the validation"
    assert apart.overlap_s(["actor.stream_sequences"], ["reward.compute_reward"]) > 0
