"""What an estimator is given of a rank's rows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.config.schema import AdvantageConfig, AlgorithmConfig, ComponentConfig, Config
from hybridflow.dispatch import Call, split
from hybridflow.losses.advantages import AdvantageInputs, advantages, needing
from hybridflow.losses.reward_shapings import ShapingInputs, reward_shapings, shaping
from hybridflow.parallel.layout import Layout
from hybridflow.tasks.grades import over_learnable
from hybridflow.workers import Context
from hybridflow.workers.advantage import Estimation
from tests.spmd import Ranks
from tests.workers import advantage_rank_functions


@needing("style", "entropy")
def by_style(inputs: AdvantageInputs) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.repeat_interleave(inputs.columns["style"], inputs.lengths), inputs.columns["entropy"]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], None]:
    return lambda name, part: monkeypatch.setitem(advantages._components, name, part)


def test_it_has_the_columns_that_it_declared(registered: Callable[[str, Any], None]) -> None:
    """One value a row of a dense column, one a token of a ragged one, and no other column."""
    registered("by_style", by_style)
    config = Config(algorithm=AlgorithmConfig(name="any", advantage=AdvantageConfig("by_style")))
    responses = Ragged.of([[5], [6, 7]], np.int64)
    rows = Batch(
        response_ids=responses,
        rewards=np.zeros(2, dtype=np.float32),
        style=np.array([1.0, 2.0], dtype=np.float32),
        entropy=responses.like(np.array([0.5, 0.25, 0.125], dtype=np.float32)),
        other=np.zeros(2),
    )
    found = Estimation(rows, Context(config, Layout(), 0, "actor"), lambda vector: vector).plain(0.0)
    assert found.ragged("advantages").values.tolist() == [1.0, 2.0, 2.0]
    assert found.ragged("returns").values.tolist() == [0.5, 0.25, 0.125]


def estimation(rows: Batch, advantage: AdvantageConfig, **settings: Any) -> Estimation:
    config = Config(algorithm=AlgorithmConfig(name="any", advantage=advantage, **settings))
    return Estimation(rows, Context(config, Layout(), 0, "actor"), lambda vector: vector)


def build_rollout(lengths: list[int], **rows: list[float]) -> Batch:
    """Rows of these lengths; a column of one value a row is dense, but for the critics' values, which are of tokens."""
    responses = Ragged.of([list(range(length)) for length in lengths], np.int64)
    ragged = ("values", "cost_values", "old_log_probs", "ref_log_probs")
    columns = {name: np.array(values, dtype=np.float32) for name, values in rows.items()}
    return Batch(
        response_ids=responses,
        **{name: responses.like(values) if name in ragged else values for name, values in columns.items()},
    )


RIGHT = [1.0] * 50 + [0.0] * 50  # 100 rows of one token, half of them right; of each half, one costs 1
COSTS = [1.0, *[0.0] * 49, 1.0, *[0.0] * 49]


@pytest.mark.parametrize("multiplier", [0.0, 0.3, 5.0])
def test_the_multiplier_is_what_a_cost_is_worth_in_rewards(multiplier: float) -> None:
    """A_r - λ A_c over 1 + λ, with critics that know the means: rare costs do not count for more than they are."""
    rows = build_rollout([1] * 100, rewards=RIGHT, costs=COSTS, values=[0.5] * 100, cost_values=[0.02] * 100)
    part = AdvantageConfig("gae", {"whiten": False})
    found = estimation(rows, part).constrained(0.0, multiplier).ragged("advantages").values
    expected = ((np.array(RIGHT) - 0.5) - multiplier * (np.array(COSTS) - 0.02)) / (1 + multiplier)
    assert np.allclose(found, expected, atol=1e-6)
    if multiplier == 0.3:
        assert found[0] == pytest.approx(0.158, abs=1e-3)


@pytest.mark.parametrize(
    "part", [AdvantageConfig("gae"), AdvantageConfig("reinforce_plus_plus"), AdvantageConfig("grpo")]
)
def test_what_is_brought_to_scale_is_reward_and_cost_together(part: AdvantageConfig) -> None:
    """Whatever an estimator does for scale, a right row that costs 1 is worth more than a wrong one that costs nothing
    if λ is under 1, and less if it is over it; and the advantages are A_r - λ A_c but for one shift and one factor."""
    rows = build_rollout([1] * 100, rewards=RIGHT, costs=COSTS, values=[0.0] * 100, cost_values=[0.0] * 100)
    rows |= Batch(group_id=np.zeros(100, dtype=np.int64))
    for multiplier in (0.3, 3.0):
        found = estimation(rows, part).constrained(0.0, multiplier)
        values = found.ragged("advantages").values.astype(np.float64)
        assert (values[0] > values[99]) == (multiplier < 1)
        plain = np.array(RIGHT) - multiplier * np.array(COSTS)
        assert np.corrcoef(values, plain)[0, 1] == pytest.approx(1.0, abs=1e-6)
        if part.name != "grpo":  # its returns are its advantages
            assert found.ragged("returns").values.tolist() == RIGHT
            assert found.ragged("cost_returns").values.tolist() == COSTS


@pytest.mark.parametrize("multiplier", [0.0, 0.3, 50.0])
def test_the_kl_has_the_same_share_whatever_the_multiplier_is(multiplier: float) -> None:
    rng, lengths = np.random.default_rng(0), [3, 1, 2]
    log_probs = {name: rng.normal(size=6).tolist() for name in ("old_log_probs", "ref_log_probs", "values")}
    rows = build_rollout(lengths, rewards=[1, 0, 2], costs=[0, 1, 5], cost_values=[0.5] * 6, **log_probs)
    part = AdvantageConfig("gae", {"whiten": False, "lam": 1.0})
    with_kl, without = (
        estimation(rows, part).constrained(coef, multiplier).ragged("advantages").values for coef in (0.2, 0.0)
    )
    kl = np.array(log_probs["old_log_probs"]) - np.array(log_probs["ref_log_probs"])
    to_come = np.concatenate([np.cumsum(row[::-1])[::-1] for row in np.split(kl, np.cumsum(lengths)[:-1])])
    assert np.allclose(with_kl - without, -0.1 * to_come, atol=1e-5)


def centered(inputs: ShapingInputs) -> torch.Tensor:
    """A user's shaping, which looks at all rewards of a call."""
    return 3 * (inputs.rewards - inputs.rewards.mean()) / inputs.lengths


@pytest.mark.parametrize(
    ("name", "options"),
    [("none", {}), ("sigmoid", {}), ("sigmoid", {"reference": 2.0}), ("overlong", {"buffer": 0.5}), ("centered", {})],
)
def test_a_response_like_the_greedy_one_has_no_advantage(
    name: str, options: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both rewards are shaped, each with the length of its own response."""
    monkeypatch.setitem(reward_shapings._components, "centered", centered)
    rewards, lengths, limit = [1.0, 1.0, 0.0, -3.0], [8, 6, 5, 2], 8
    greedy, greedy_lengths = [1.0, 0.0, 0.0, 2.0], [8, 6, 7, 2]
    rows = build_rollout(lengths, rewards=rewards, baseline_rewards=greedy)
    rows |= Batch(baseline_lengths=np.array(greedy_lengths))
    shaped = estimation(rows, AdvantageConfig("remax"), reward_shaping=ComponentConfig(name, options))
    shaped.context.config.rollout.max_response_tokens = limit
    found = [row[-1] for row in shaped.plain(0.0).ragged("advantages")]
    of = torch.tensor([*rewards, *greedy]), torch.tensor([*lengths, *greedy_lengths])
    expected = shaping(name, options)(ShapingInputs(*of, limit)).reshape(2, 4)
    assert np.allclose(found, expected[0] - expected[1])
    assert found[0] == 0.0, "as good and as long as the greedy response"


def test_shapings_know_how_responses_ended_and_remember() -> None:
    """Of a greedy response its length says whether it was cut."""
    rows = build_rollout([2, 2], rewards=[1.0, 1.0], baseline_rewards=[1.0, 1.0])
    rows |= Batch(
        finish_reason=np.array(["end", "length"], dtype=object), baseline_lengths=np.array([2, 1]),
    )  # fmt: skip
    shaped = estimation(
        rows, AdvantageConfig("remax"), reward_shapings={"truncated": {"penalty": 0.5}, "running_norm": {}}
    )
    shaped.context.config.rollout.max_response_tokens = 2
    found = [row[-1] for row in shaped.plain(0.0).ragged("advantages")]
    assert np.allclose(found, [0.5 / np.std([1, 0.5, 0.5, 1], ddof=1), -0.5 / np.std([1, 0.5, 0.5, 1], ddof=1)])
    assert shaped.shaping_states["running_norm"]["count"] == 4


def test_values_of_tokens_are_part_of_the_reward() -> None:
    """On top of the score at the last token; whole rows are compared by the sum."""
    rows = build_rollout([2, 1], rewards=[1.0, 0.0])
    steps = rows.ragged("response_ids").like(np.array([0.5, 0.25, -1.0], dtype=np.float32))
    rows |= Batch(token_rewards=steps, group_id=np.zeros(2, dtype=np.int64), costs=np.zeros(2, dtype=np.float32))
    found = estimation(rows, AdvantageConfig("reinforce_plus_plus")).plain(0.0)
    assert found.ragged("returns").values.tolist() == [1.75, 1.25, -1.0]
    found = estimation(rows, AdvantageConfig("grpo", {"normalize_std": False})).plain(0.0)
    assert found.ragged("advantages").values.tolist() == [1.375, 1.375, -1.375]
    found = estimation(rows, AdvantageConfig("grpo", {"normalize_std": False})).constrained(0.0, 1.0)
    assert found.ragged("advantages").values.tolist() == [0.6875, 0.6875, -0.6875], "of a mixture they have their share"


def test_turns_are_those_of_the_learned_tokens_and_failed_rows_do_not_count() -> None:
    """What the environment says is in no turn; a row whose environment failed is in no group."""
    rows = build_rollout([5, 4, 2, 3], rewards=[1.0, 0.0, 0.0, 5.0])
    responses = rows.ragged("response_ids")
    mask = [1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 0]
    steps = [0, 0.5, 0, 0, 0, 0.25, 0, 0, 0, 0, 0, 9, 9, 9]
    index = [0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1]
    rows |= Batch(
        group_id=np.zeros(4, dtype=np.int64),
        loss_mask=responses.like(np.array(mask)),
        turn_index=responses.like(np.array(index)),
        token_rewards=responses.like(np.array(steps, dtype=np.float32)),
    )
    part = AdvantageConfig("rloo", {"per_turn": True})
    found = over_learnable(rows, lambda kept: estimation(kept, part).plain(0.0)).ragged("advantages")
    first = [1.5 - 0.125, 0.25 - 0.75, 0.0 - 0.875]  # of 1.5, 0.25 and 0 to come
    assert found[0].tolist() == [first[0], first[0], 0.0, 1.0, 1.0]
    assert found[1].tolist() == [first[1], 0.0, -1.0, -1.0]
    assert found[2].tolist() == [first[2], first[2]] and not found[3].any()


def test_gdpo_reads_grades_and_their_weights() -> None:
    rows = build_rollout([1, 1], rewards=[0.0, 1.0]) | Batch(group_id=np.zeros(2, dtype=np.int64))
    rows |= Batch(grades=np.array([[0.0, 5.0], [1.0, 0.0]], dtype=np.float32))
    reading = estimation(rows, AdvantageConfig("gdpo"))
    reading.context.config.reward.graders = {"exact": 1.0, "brevity": 3.0}
    low, high = reading.plain(0.0).ragged("advantages").values
    assert low > 0 > high, "the second weighs more, however small the first one's scale"


def test_a_baseline_of_unknown_length_cannot_be_shaped() -> None:
    rows = build_rollout([2], rewards=[1.0], baseline_rewards=[1.0])
    assert estimation(rows, AdvantageConfig("remax")).plain(0.0).ragged("advantages").values.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="give 'baseline_lengths' beside them"):
        estimation(rows, AdvantageConfig("remax"), reward_shaping=ComponentConfig("overlong")).plain(0.0)
    grouped = rows | Batch(group_id=np.zeros(1, dtype=np.int64))
    estimation(grouped, AdvantageConfig("grpo"), reward_shaping=ComponentConfig("overlong")).plain(
        0.0
    )  # which does not read it


SCRIPT = """
import sys
import hybridflow.workers.advantage
print([name for name in ("megatron", "vllm", "ray") if name in sys.modules])
"""


@pytest.mark.processes
def test_its_module_needs_no_engine() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.ranks
def test_ranks_without_a_model_estimate_what_one_rank_does(ranks1: Ranks, ranks2: Ranks) -> None:
    """Whole groups on each rank; what is brought to scale is so over all of them."""
    config = Config(algorithm=AlgorithmConfig(name="any", advantage=AdvantageConfig("reinforce_plus_plus_baseline")))
    rng = np.random.default_rng(2)
    rollout = build_rollout([3, 1, 4, 1, 5, 2], rewards=rng.normal(size=6).tolist())
    rows = BatchRef.from_local(rollout | Batch(group_id=np.repeat(np.arange(3), 2)))
    found: dict[int, list[float]] = {}
    measured: dict[int, dict[str, float]] = {}
    for ranks, world in ((ranks1, 1), (ranks2, 2)):
        calls = split(Call((rows,), {"kl_coef": 0.0}), world, whole_groups=True)
        parts = [call.map(lambda value: value.get() if isinstance(value, BatchRef) else value) for call in calls]
        given = ranks.run(advantage_rank_functions.estimate, config, parts)
        found[world] = [float(value) for rows, _ in given for value in rows.ragged("advantages").values]
        measured[world] = given[0][1]
    assert np.allclose(found[2], found[1], atol=1e-6) and np.std(found[1]) > 0.9
    assert set(measured[1]) == {
        "critic/advantages", "critic/advantages_max", "critic/advantages_min", "critic/returns",
        "rollout/unequal_groups",
    }  # fmt: skip


def test_groups_whose_rewards_differ_are_counted() -> None:
    """Groups of several samples alone: of one sample nobody knows whether it is like the others."""
    rows = build_rollout([1] * 6, rewards=[1, 0, 1, 1, 0, 0.5])
    rows |= Batch(group_id=np.array([4, 4, 2, 2, 7, 9]))
    found = estimation(rows, AdvantageConfig("grpo"))
    found.plain(0.0)
    assert found.context.metrics["rollout/unequal_groups"] == 0.5
    alone = estimation(rows.select(np.array([4, 5])), AdvantageConfig("grpo"))
    alone.plain(0.0)
    assert "rollout/unequal_groups" not in alone.context.metrics
