"""Where roles run changes no number: PPO on four placements, and what they show of work at the same time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer import recorded_rollouts
from tests.trainer.conftest import Launch, Ran
from tests.trainer.test_checkpoints import assert_alike, metrics

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(900)]  # warm runs before the first

SIZES = (
    "experiment=addition",
    "algorithm.prompts_per_step=33",
    "algorithm.critic_warmup_steps=0",
    "trainer.steps=2",
    "trainer.save_every=2",
    "trainer.log_rollouts_every=1",
    "trainer.timeline_every=1",
)
ONE_RANK = ("actor.parallel.tensor=1", "actor.recompute=none")  # of each role


def placed(roles: dict[str, str], **pools: int) -> tuple[str, ...]:
    """Overrides for these pools, in their order, with roles on other ones than the first."""
    own = [f"+placement.pools.{name}={slots}" for name, slots in pools.items()]
    return ("~placement.pools.main", *own, *(f"+placement.roles.{role}={pool}" for role, pool in roles.items()))


PLACEMENTS = {
    "colocated": placed({}, all=1),
    "split": placed({"critic": "judges", "reference": "judges"}, policy=1, judges=1),
    "standalone": placed({"critic": "critic", "reference": "reference"}, actor=1, critic=1, reference=1),
    "rollout_apart": placed({"rollout": "rollout"}, train=1, rollout=1),
    "rollout_beside_judges": placed({"actor": "policy", "rollout": "judges", "critic": "judges"}, judges=1, policy=1),
}


@pytest.fixture(scope="module")
def ran(launch: Launch, warm: Ran) -> dict[str, Ran]:
    """Two steps of PPO on each placement, of roles with a rank each."""
    assert warm.status == 0, warm.output
    return {name: launch("train", name, *SIZES, *ONE_RANK, *places) for name, places in PLACEMENTS.items()}


def test_ppo_leaves_the_same_bits_on_every_placement(ran: dict[str, Ran]) -> None:
    """Every metric but times and memory, every row, the model, the moments and the random states."""
    for name in PLACEMENTS:
        assert_alike(ran[name], ran["colocated"])


def test_ppo_leaves_the_same_bits_split_over_two_ranks_each(launch: Launch, warm: Ran) -> None:
    """The actor trains as tensor 2 and generates as two replicas; critic and reference are data parallel."""
    data = [f"{role}.parallel.tensor=1" for role in ("critic", "reference")]
    colocated = launch("train", "colocated_2", *SIZES, *data)
    assert_alike(launch("train", "split_2", *SIZES, *data, "placement=split"), colocated)


def test_where_layouts_differ_the_same_rows_give_numbers_within_1e_5(
    launch: Launch, warm: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step on rows that the first of them has sampled."""
    monkeypatch.setenv(recorded_rollouts.FOLDER, str(tmp_path))
    own = (f"plugins=[{recorded_rollouts.__name__}]", f"algorithm.name={recorded_rollouts.NAME}", "trainer.steps=1")
    critic = ("critic.parallel.tensor=1", "reference.parallel.tensor=1")
    colocated = launch("train", "recorded", *SIZES, *own)
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
        assert step_of(launch("train", name, *SIZES, *own, *places)) == pytest.approx(expected, rel=1e-5, abs=1e-5), (
            name
        )


def step_of(ran: Ran) -> dict[str, float]:
    """What the only step of a run measured, but for times and memory."""
    assert ran.status == 0, ran.output
    [step] = [line for line in metrics(ran) if "critic/value_loss" in line]
    return step


AT_ONCE = {
    "split": [("actor.compute_log_prob", "critic.compute_values"), ("actor.update_actor", "critic.update_critic")],
    "standalone": [
        ("actor.compute_log_prob", "critic.compute_values"),
        ("reference.compute_ref_log_prob", "critic.compute_values"),
        ("actor.update_actor", "critic.update_critic"),
    ],
    "rollout_beside_judges": [("actor.update_actor", "critic.update_critic")],
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_roles_on_pools_of_their_own_work_at_the_same_time(ran: dict[str, Ran], name: str) -> None:
    for one, other in AT_ONCE[name]:
        assert ran[name].overlap_s(one, other) > 0, (one, other)
